"""One memory for learner and engine, and the checks of a push, without an engine: the engine's tensors are known by name and shape."""

import pytest
import torch
from colocation import native_learner, tiny_model

from fastgrpo.rollout.push import Expected, PushError, Stream
from fastgrpo.rollout.shared_weights import NotShareable, engine_name, engine_views, lay_out


def engine_shapes(model) -> dict[str, torch.Size]:
    """What vLLM makes of a model: fused rows, and 320 rows for 300 ids."""
    shapes: dict[str, torch.Size] = {}
    for name, parameter in model.named_parameters():
        rows = 320 if parameter.shape[0] == 300 else parameter.shape[0]
        fused = engine_name(name)
        shapes[fused] = torch.Size([rows + (shapes[fused][0] if fused in shapes else 0), *parameter.shape[1:]])
    return shapes


@pytest.mark.parametrize("kind", ["qwen tied", "qwen untied", "llama"])
def test_fused_tensors_are_views_of_the_parameters_in_the_order_of_their_rows(kind):
    model = tiny_model(kind)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    objects = list(model.parameters())
    lay_out(model)
    assert all(a is b for a, b in zip(objects, model.parameters(), strict=True))
    assert all(torch.equal(values[name], parameter) for name, parameter in model.named_parameters())
    views = engine_views(model, engine_shapes(model))
    attention = "model.layers.1.self_attn"
    parts = [values[f"{attention}.{member}_proj.weight"] for member in "qkv"]
    assert torch.equal(views[f"{attention}.qkv_proj.weight"], torch.cat(parts))
    mlp = "model.layers.0.mlp"
    assert torch.equal(views[f"{mlp}.gate_up_proj.weight"], torch.cat([values[f"{mlp}.{name}_proj.weight"] for name in ("gate", "up")]))
    assert torch.equal(views["model.embed_tokens.weight"][:300], values["model.embed_tokens.weight"])
    assert len({tensor.untyped_storage().data_ptr() for tensor in [*views.values(), *objects]}) == 1
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight += 1
    assert torch.equal(views[f"{attention}.qkv_proj.weight"], torch.cat([parts[0], parts[1] + 1, parts[2]]))


def test_a_second_layout_and_an_optimizer_step_move_nothing():
    model = tiny_model("qwen tied")
    lay_out(model)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    lay_out(model)
    learner = native_learner(model)
    learner.gradients = [torch.ones_like(gradient) for gradient in learner.gradients]
    learner.step()
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


def test_what_cannot_be_shared_is_named():
    def reason(spoil, shapes=lambda shapes: shapes) -> str:
        model = tiny_model("qwen untied")
        with pytest.raises(NotShareable) as error:
            spoil(model)
            lay_out(model)
            engine_views(model, shapes(engine_shapes(model)))
        return str(error.value)

    nothing = lambda model: None  # noqa: E731
    halved = {"model.layers.0.mlp.down_proj.weight": torch.Size([64, 64])}
    assert "model.layers.0.mlp.down_proj.weight is (64, 64) in the engine, 64 rows of (128,)" in reason(nothing, lambda s: s | halved)
    assert "name their tensors differently: model.extra" in reason(nothing, lambda s: s | {"model.extra": torch.Size([1])})
    assert "torch.bfloat16 on cpu, torch.float32 on cpu" in reason(lambda model: model.lm_head.to(torch.bfloat16))
    assert "sharded" in reason(lambda model: setattr(model.lm_head.weight, "data", torch.empty(0)))

    def another_owner(model):
        parameters = list(model.parameters())[::-1]
        buffer = torch.cat([parameter.detach().flatten() for parameter in parameters])
        start = 0
        for parameter in parameters:
            parameter.data = buffer[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    assert "qkv_proj.weight are not side by side" in reason(another_owner)


def test_a_stream_of_weights_is_counted_and_checked():
    model = tiny_model("qwen tied")
    expected, items = Expected.of(model, model.named_parameters()), list(model.named_parameters())
    stream = Stream(model.state_dict().items(), expected)  # with the second name of the tied head
    assert [name for name, _ in stream] == [name for name, _ in items]
    assert stream.bytes == sum(parameter.nbytes for parameter in model.parameters())
    spoiled = {
        "1 of 26 are missing: model.embed_tokens.weight": items[1:],
        "lm_head.bias is unknown": [*items, ("lm_head.bias", items[0][1])],
        "model.norm.weight came twice": [*items, items[-1]],
        "model.embed_tokens.weight has shape": [(items[0][0], items[0][1].T), *items[1:]],
    }
    for says, weights in spoiled.items():
        with pytest.raises(PushError, match=says):
            list(Stream(weights, expected))
