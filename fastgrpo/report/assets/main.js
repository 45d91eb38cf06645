// The page from its data: words first, so that something is seen at once; then plotly is unpacked and the charts in sight are drawn.

const LIVE_SECONDS = 5;
const CHOSEN =
  "Of each step these are the longest, the shortest, the best and worst paid, the least likely, one that graders choked on, " +
  "then right, wrong and truncated ones in turn: no mean can be taken over them.";

function section(id, title, ...content) {
  return el(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title),
    el("div", { id: `${id}-part` }, ...content),
  );
}

const themes = {
  asked: "", // "" follows the system
  set(asked) {
    themes.asked = asked;
    const dark = asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    redraw();
  },
};

function masthead(data, sections) {
  const button = el(
    "button",
    {
      type: "button",
      title: "Light or dark",
      onclick: () => themes.set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
    },
    "Theme",
  );
  return el(
    "div",
    {},
    el(
      "nav",
      { "aria-label": "Parts" },
      sections.map(([id, title]) => el("a", { href: `#${id}` }, title)),
    ),
    button,
  );
}

function heldWords(data) {
  if (data.live) return "Read from the run directory page by page, newest step first.";
  const words = data.rollouts.map((held, run) => {
    const name = data.runs.length > 1 ? `${data.runs[run].name}: ` : "",
      notes = held.notes.map((note) => ` Note: ${note}.`).join("");
    return `${name}${number(held.shown)} of ${number(held.total)} responses, from ${number(held.steps)} steps.${notes}`;
  });
  if (data.rollouts.some((held) => held.shown < held.total)) words.push(CHOSEN);
  return words.join(" ");
}

function build(data) {
  const names = data.runs.map((run) => run.name);
  const main = document.getElementById("main");
  const parts = names.length ? [["overview", "Overview", () => overview(data)]] : [];
  if (data.experiments.length) parts.push(["experiments", "Experiment", () => data.experiments.map(experimentPart)]);
  if (data.runs.length) {
    parts.push([
      "curves",
      "Curves",
      () => [
        runLegend(names),
        data.charts.length ? null : el("p", { class: "quiet" }, "No step was finished: there is nothing to draw."),
        el(
          "div",
          { class: "grid charts", id: "charts" },
          data.charts.map((chart) => chartCard(chart, names)),
        ),
      ],
    ]);
    parts.push(["time", "Time", () => data.runs.map((run) => timePart(run, names.length > 1))]);
    parts.push(["memory", "Memory", () => data.runs.map((run) => memoryPart(run, names.length > 1))]);
    const source = data.live ? new ServedRollouts() : new EmbeddedRollouts((run) => document.querySelectorAll(`script[data-run="${run}"]`));
    parts.push(["rollouts", "Rollouts", () => rolloutBrowser(data, source)]);
  }
  fill(
    main,
    el("h1", {}, ...shown(data.title)),
    el("p", { class: "quiet", id: "made" }, madeWords(data)),
    parts.map(([id, title, content]) => section(id, title, ...content())),
  );
  fill(document.getElementById("top"), masthead(data, parts));
  if (data.runs.length) document.getElementById("held").replaceChildren(...shown(heldWords(data)));
}

function madeWords(data) {
  return data.live ? `Live; the last news are of ${data.made}.` : `Made by fastgrpo report at ${data.made}.`;
}

async function loadLibrary() {
  const script = document.createElement("script");
  script.textContent = await unpack(document.getElementById("plotly").textContent);
  document.head.append(script);
  drawing.library = window.Plotly;
  redraw();
}

async function follow(data) {
  let last = JSON.stringify(data);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, LIVE_SECONDS * 1000));
    if (document.hidden) continue;
    try {
      const text = await (await fetch("data.json")).text(),
        newer = JSON.parse(text);
      document.getElementById("made").textContent = madeWords(newer);
      if (text === last) continue;
      last = text;
      update(newer);
    } catch {
      document.getElementById("made").textContent = "Live no more: the server does not answer.";
    }
  }
}

function update(data) {
  if (!data.runs.length) return; // an experiment alone does not change
  const names = data.runs.map((run) => run.name);
  const open = [...document.querySelectorAll("#overview details")].map((each) => each.open);
  fill(document.getElementById("overview-part"), ...overview(data));
  document.querySelectorAll("#overview details").forEach((each, i) => {
    each.open = open[i] ?? each.open;
  });
  updateCharts(document.getElementById("charts"), data.charts, names);
  fill(document.getElementById("time-part"), ...data.runs.map((run) => timePart(run, names.length > 1)));
  fill(document.getElementById("memory-part"), ...data.runs.map((run) => memoryPart(run, names.length > 1)));
}

async function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  themes.set("");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (!themes.asked) themes.set("");
  });
  build(data);
  document.documentElement.dataset.viewed = String(Math.round(performance.now())); // ms until the first view, for whoever measures
  await painted();
  if (!window.DecompressionStream) {
    document
      .getElementById("main")
      .prepend(el("p", { class: "note" }, "This browser cannot unpack charts and rollouts: any of 2023 or newer can."));
    return;
  }
  await loadLibrary();
  if (data.runs.length) await refresh();
  document.documentElement.dataset.ready = "yes";
  if (data.live) await follow(data);
}

start();
