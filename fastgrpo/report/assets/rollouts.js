// The rollout browser: a filter, and a list that grows by pages.

const browser = { source: null, rows: [], next: null, chosen: -1, asked: 0, shade: "logprob", templates: [], parts: {} };

function choice(name, label, options) {
  return el(
    "label",
    {},
    label,
    el(
      "select",
      { name },
      options.map(([value, text]) => el("option", { value }, text)),
    ),
  );
}

function limit(name, label) {
  return el("label", {}, label, el("input", { name, type: "number", min: "0", inputmode: "numeric" }));
}

function rolloutBrowser(data, source) {
  browser.source = source;
  browser.templates = data.runs.map((run) => run.template);
  const runs = data.runs.map((run, i) => [String(i), run.name]);
  const form = el(
    "form",
    {
      class: "filter card",
      role: "search",
      "aria-label": "Filter of rollouts",
      onsubmit: (event) => event.preventDefault(),
      oninput: () => later(refresh),
    },
    el(
      "label",
      { class: "whole" },
      "Search in problem, response, gold and id (key: /)",
      el("input", { name: "q", type: "search", autocomplete: "off", spellcheck: "false" }),
    ),
    runs.length > 1 ? el("div", { class: "whole" }, choice("run", "Run", runs)) : el("input", { name: "run", type: "hidden", value: "0" }),
    limit("first", "From step"),
    limit("last", "To step"),
    choice("reward", "Reward", [
      ["any", "any"],
      ["positive", "above 0"],
      ["zero", "0"],
      ["negative", "below 0"],
      ["none", "none: unscorable"],
    ]),
    choice("truncated", "Truncated", [
      ["any", "any"],
      ["yes", "yes"],
      ["no", "no"],
    ]),
    limit("shortest", "Tokens, at least"),
    limit("longest", "Tokens, at most"),
    choice("grading", "Grading", [
      ["any", "any"],
      ["ok", "ok"],
      ["odd", "not ok"],
    ]),
    el("label", {}, "\u00a0", el("button", { type: "reset", onclick: () => later(refresh) }, "Clear")),
  );
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
    if (page.next !== null)
      list.append(el("li", { class: "more" }, el("button", { type: "button", onclick: () => more(browser.next) }, "More ...")));
    const among =
      page.matches === null ? `${browser.rows.length} found${page.next === null ? "" : " so far"}` : `${number(page.matches)} match`;
    fill(
      count,
      `${among}${browser.rows.length < (page.matches ?? 0) ? `, ${browser.rows.length} listed` : ""}. Arrow keys walk through the list.`,
    );
  } catch (error) {
    if (asked === browser.asked) fill(count, `Rollouts could not be read: ${error.message}`);
  }
}

function listed(row, place) {
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", tabindex: place ? "-1" : "0", onclick: () => choose(place, true) },
      el(
        "span",
        { class: "heads" },
        el("span", {}, `step ${row.step}`),
        verdict(row),
        row.truncated && el("span", { class: "badge warn" }, "cut"),
        row.grading !== "ok" && el("span", { class: "badge warn" }, row.grading),
        el("small", {}, `${number(row.length)} tokens`),
      ),
      el("span", { class: "snippet" }, ...shown(row.problem.slice(0, 120).replace(/\s+/g, " "))),
    ),
  );
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

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea") && browser.parts.form) {
    event.preventDefault();
    browser.parts.form.elements.q.focus();
  }
});
