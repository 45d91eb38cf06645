// The rollout browser: a filter, a list that grows by pages, and one response in full with its tokens shaded.

const FULL_SHADE = 5; // nats: a token this unlikely is shaded in full

const browser = { source: null, rows: [], next: null, chosen: -1, asked: 0, shade: "logprob", templates: [], parts: {} };

function choice(name, label, options) {
  return el("label", {}, label, el("select", { name }, options.map(([value, text]) => el("option", { value }, text))));
}

function limit(name, label) {
  return el("label", {}, label, el("input", { name, type: "number", min: "0", inputmode: "numeric" }));
}

function rolloutBrowser(data, source) {
  browser.source = source;
  browser.templates = data.runs.map((run) => run.template);
  const runs = data.runs.map((run, i) => [String(i), run.name]);
  const form = el("form", { class: "filter card", role: "search", "aria-label": "Filter of rollouts", onsubmit: (event) => event.preventDefault(), oninput: () => later(refresh) },
    el("label", { class: "whole" }, "Search in problem, response, gold and id (key: /)", el("input", { name: "q", type: "search", autocomplete: "off", spellcheck: "false" })),
    runs.length > 1 ? el("div", { class: "whole" }, choice("run", "Run", runs)) : el("input", { name: "run", type: "hidden", value: "0" }),
    limit("first", "From step"), limit("last", "To step"),
    choice("reward", "Reward", [["any", "any"], ["positive", "above 0"], ["zero", "0"], ["negative", "below 0"], ["none", "none: unscorable"]]),
    choice("truncated", "Truncated", [["any", "any"], ["yes", "yes"], ["no", "no"]]),
    limit("shortest", "Tokens, at least"), limit("longest", "Tokens, at most"),
    choice("grading", "Grading", [["any", "any"], ["ok", "ok"], ["odd", "not ok"]]),
    el("label", {}, "\u00a0", el("button", { type: "reset", onclick: () => later(refresh) }, "Clear")));
  const list = el("ol", { class: "list", "aria-label": "Rollouts", onkeydown: walk });
  const detail = el("article", { class: "card", "aria-live": "polite" });
  const count = el("p", { role: "status", class: "quiet" });
  browser.parts = { form, list, detail, count };
  return [el("p", { class: "quiet", id: "held" }), form, count, el("div", { class: "browser" }, list, detail)];
}

let waiting = 0;
function later(work) {
  clearTimeout(waiting);
  waiting = setTimeout(work, 150);
}

function filterNow() {
  return Object.fromEntries(new FormData(browser.parts.form));
}

async function refresh() {
  browser.rows = [];
  browser.chosen = -1;
  fill(browser.parts.list);
  fill(browser.parts.detail, el("p", { class: "quiet" }, "No rollout is chosen."));
  await more(null);
  if (browser.rows.length) choose(0, false);
}

async function more(cursor) {
  const asked = ++browser.asked;
  const { list, count } = browser.parts;
  fill(count, "Looking ...");
  try {
    const page = await browser.source.page(filterNow(), cursor);
    if (asked !== browser.asked) return; // the filter has changed meanwhile
    list.querySelector(".more")?.remove();
    const start = browser.rows.length;
    browser.rows.push(...page.rows);
    browser.next = page.next;
    list.append(...page.rows.map((row, i) => listed(row, start + i)));
    if (page.next !== null) list.append(el("li", { class: "more" }, el("button", { type: "button", onclick: () => more(browser.next) }, "More ...")));
    const among = page.matches === null ? `${browser.rows.length} found${page.next === null ? "" : " so far"}` : `${number(page.matches)} match`;
    fill(count, `${among}${browser.rows.length < (page.matches ?? 0) ? `, ${browser.rows.length} listed` : ""}. Arrow keys walk through the list.`);
  } catch (error) {
    if (asked === browser.asked) fill(count, `Rollouts could not be read: ${error.message}`);
  }
}

function verdict(row) {
  const sign = row.reward === null ? "warn" : row.reward > 0 ? "good" : "bad";
  return el("span", { class: `badge ${sign}` }, row.reward === null ? "no reward" : `reward ${number(row.reward)}`);
}

function listed(row, place) {
  return el("li", {}, el("button", { type: "button", tabindex: place ? "-1" : "0", onclick: () => choose(place, true) },
    el("span", { class: "heads" }, el("span", {}, `step ${row.step}`), verdict(row), row.truncated && el("span", { class: "badge warn" }, "cut"), row.grading !== "ok" && el("span", { class: "badge warn" }, row.grading), el("small", {}, `${number(row.length)} tokens`)),
    el("span", { class: "snippet" }, ...shown(row.problem.slice(0, 120).replace(/\s+/g, " ")))));
}

function choose(place, focus) {
  const buttons = [...browser.parts.list.querySelectorAll("li:not(.more) button")];
  if (!buttons[place]) return;
  buttons.forEach((button, i) => {
    button.tabIndex = i === place ? 0 : -1;
    button.setAttribute("aria-current", String(i === place));
  });
  browser.chosen = place;
  if (focus) {
    buttons[place].focus({ preventScroll: false });
    if (!matchMedia("(min-width: 52rem)").matches) browser.parts.detail.scrollIntoView({ block: "nearest" });
  }
  fill(browser.parts.detail, ...inFull(browser.rows[place]));
}

function walk(event) {
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  if (step) {
    event.preventDefault();
    choose(browser.chosen + step, true);
  }
}

function inFull(row) {
  const [before, after] = browser.templates[browser.parts.form.elements.run.value];
  const parts = Object.entries(row.parts).map(([name, value]) => `${name} ${number(value)}`).join(", ");
  const facts = [["graded", row.grading], ["form", row.formatted ? "right" : "wrong"], ["ended", row.truncated ? "cut at max_new_tokens" : "by itself"],
    ["tokens", number(row.length)], ["advantage", number(row.advantage)], ["mean log-prob", `${number(row.logprob)} nats`]];
  const response = el("div", { class: "text response" });
  const token = el("p", { class: "quiet mono", role: "status" });
  const show = () => fill(response, ...shaded(row, browser.shade));
  const radio = (value, text) => el("label", {}, el("input", { type: "radio", name: "shade", value, checked: browser.shade === value, onchange: () => { browser.shade = value; show(); } }), text);
  const point = (event) => tell(event, row, response, token);
  response.addEventListener("click", point);
  response.addEventListener("pointerover", point);
  show();
  return [
    el("div", { class: "heads" }, el("h3", {}, ...shown(`Step ${row.step}, ${row.id}, response ${row.sample + 1}`)), verdict(row), parts && el("small", {}, ...shown(parts))),
    el("dl", { class: "facts" }, facts.map(([what, value]) => el("div", {}, el("dt", {}, what), el("dd", {}, value)))),
    el("h3", {}, "Prompt"), el("div", { class: "text" }, el("span", { class: "quiet" }, ...shown(before)), ...shown(row.problem), el("span", { class: "quiet" }, ...shown(after))),
    el("h3", {}, "Gold"), el("div", { class: "text mono" }, ...shown(row.gold)),
    el("h3", {}, "Response"),
    el("fieldset", { class: "choice" }, el("legend", {}, "Shade by"), radio("logprob", "log-prob (darker: less likely)"), radio("advantage", "advantage"), radio("none", "nothing")),
    row.lengths === null && el("p", { class: "quiet" }, "Its tokens cannot be told apart: no shading by log-prob."),
    response, token];
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
    return el("span", { class: "token", "data-i": i, style: strength > 0.01 ? { background: `rgba(var(--shade), ${strength.toFixed(3)})` } : {} }, ...piece);
  });
}

function tell(event, row, response, place) {
  const token = event.target.closest(".token");
  if (!token) return;
  response.querySelector(".chosen")?.classList.remove("chosen");
  token.classList.add("chosen");
  const i = Number(token.dataset.i), nats = row.logprobs[i] / 100;
  fill(place, `token ${i + 1} of ${row.length}: ${nats <= -20 ? "-20 or less" : nats} nats, probability ${percent(Math.exp(nats))}; advantage ${number(row.advantage)}`);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea") && browser.parts.form) {
    event.preventDefault();
    browser.parts.form.elements.q.focus();
  }
});
