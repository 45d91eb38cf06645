// One response in full: prompt, gold, verdict, and its tokens shaded by how likely they were, or by its advantage.

const FULL_SHADE = 5; // nats: a token this unlikely is shaded in full

function verdict(row) {
  const sign = row.reward === null ? "warn" : row.reward > 0 ? "good" : "bad";
  return el("span", { class: `badge ${sign}` }, row.reward === null ? "no reward" : `reward ${number(row.reward)}`);
}

function inFull(row) {
  const [before, after] = browser.templates[browser.parts.form.elements.run.value];
  const parts = Object.entries(row.parts)
    .map(([name, value]) => `${name} ${number(value)}`)
    .join(", ");
  const facts = [
    ["graded", row.grading],
    ["form", row.formatted ? "right" : "wrong"],
    ["ended", row.truncated ? "cut at max_new_tokens" : "by itself"],
    ["tokens", number(row.length)],
    ["advantage", number(row.advantage)],
    ["mean log-prob", `${number(row.logprob)} nats`],
  ];
  const response = el("div", { class: "text response" });
  const token = el("p", { class: "quiet mono", role: "status" });
  const show = () => fill(response, ...shaded(row, browser.shade));
  const radio = (value, text) =>
    el(
      "label",
      {},
      el("input", {
        type: "radio",
        name: "shade",
        value,
        checked: browser.shade === value,
        onchange: () => {
          browser.shade = value;
          show();
        },
      }),
      text,
    );
  const point = (event) => tell(event, row, response, token);
  response.addEventListener("click", point);
  response.addEventListener("pointerover", point);
  show();
  return [
    el(
      "div",
      { class: "heads" },
      el("h3", {}, ...shown(`Step ${row.step}, ${row.id}, response ${row.sample + 1}`)),
      verdict(row),
      parts && el("small", {}, ...shown(parts)),
    ),
    el(
      "dl",
      { class: "facts" },
      facts.map(([what, value]) => el("div", {}, el("dt", {}, what), el("dd", {}, value))),
    ),
    el("h3", {}, "Prompt"),
    el(
      "div",
      { class: "text" },
      el("span", { class: "quiet" }, ...shown(before)),
      ...shown(row.problem),
      el("span", { class: "quiet" }, ...shown(after)),
    ),
    el("h3", {}, "Gold"),
    el("div", { class: "text mono" }, ...shown(row.gold)),
    el("h3", {}, "Response"),
    el(
      "fieldset",
      { class: "choice" },
      el("legend", {}, "Shade by"),
      radio("logprob", "log-prob (darker: less likely)"),
      radio("advantage", "advantage"),
      radio("none", "nothing"),
    ),
    row.lengths === null && el("p", { class: "quiet" }, "Its tokens cannot be told apart: no shading by log-prob."),
    response,
    token,
  ];
}

function shaded(row, by) {
  if (by === "advantage") {
    const strength = Math.min(0.5, Math.abs(row.advantage ?? 0) / 2);
    return [el("span", { style: { background: `rgba(var(--${row.advantage < 0 ? "minus" : "plus"}), ${strength})` } }, ...shown(row.text))];
  }
  if (by === "none" || row.lengths === null) return shown(row.text);
  let from = 0;
  return row.lengths.map((length, i) => {
    const strength = Math.min(1, -row.logprobs[i] / 100 / FULL_SHADE) * 0.75;
    const piece = length ? shown(row.text.slice(from, from + length)) : [el("span", { class: "control" }, "\u00b7")];
    from += length;
    return el(
      "span",
      { class: "token", "data-i": i, style: strength > 0.01 ? { background: `rgba(var(--shade), ${strength.toFixed(3)})` } : {} },
      ...piece,
    );
  });
}

function tell(event, row, response, place) {
  const token = event.target.closest(".token");
  if (!token) return;
  response.querySelector(".chosen")?.classList.remove("chosen");
  token.classList.add("chosen");
  const i = Number(token.dataset.i),
    nats = row.logprobs[i] / 100;
  fill(
    place,
    `token ${i + 1} of ${row.length}: ${nats <= -20 ? "-20 or less" : nats} nats, ` +
      `probability ${percent(Math.exp(nats))}; advantage ${number(row.advantage)}`,
  );
}
