// What a run is and how it went, in words and tables: state, facts, settings that differ, time, memory, log.

const STATES = { running: "warn", finished: "good", stopped: "bad", empty: "bad" };

function runCard(run) {
  return el(
    "article",
    { class: "card" },
    el(
      "div",
      { class: "heads" },
      el("h3", {}, ...shown(run.name)),
      el("span", { class: `badge ${STATES[run.state]}` }, run.state === "empty" ? "stopped early" : run.state),
      el("small", { class: "mono" }, ...shown(run.path)),
    ),
    el("p", {}, ...shown(run.said)),
    run.notes.map((note) => el("p", { class: "note" }, ...shown(note))),
    run.facts.length > 0 &&
      el(
        "dl",
        { class: "facts" },
        run.facts.map(([what, value]) => el("div", {}, el("dt", {}, what), el("dd", {}, ...shown(value)))),
      ),
    run.state !== "finished" &&
      run.log &&
      el("details", { open: run.state === "empty" }, el("summary", {}, "The end of its log"), el("pre", {}, ...shown(run.log))),
  );
}

function differencesPart(data) {
  const several = data.runs.length > 1,
    rows = data.differences;
  if (!rows.length)
    return el(
      "p",
      { class: "quiet" },
      several ? "The settings of these runs do not differ." : "Every setting is its recipe's or the default.",
    );
  const head = several ? ["setting", ...data.runs.map((run) => run.name)] : ["setting", "value", "from"];
  const body = rows.map((row) => [
    el("code", {}, row.key),
    ...(several ? row.texts.map((text) => shown(text ?? "(none)")) : [shown(row.texts[0]), shown(row.origins[0] || "")]),
  ]);
  return table(
    head,
    body.map((row) => row.map((cell) => el("td", { class: "text" }, cell))),
  );
}

function settingsPart(run) {
  return el(
    "details",
    {},
    el("summary", {}, `All settings of ${run.name}`),
    table(
      ["setting", "value", "from"],
      run.settings.map((setting) => [setting.key, setting.text, setting.origin].map((text) => el("td", { class: "text" }, ...shown(text)))),
    ),
  );
}

function overview(data) {
  return [
    el("div", { class: "grid" }, data.runs.map(runCard)),
    el("h3", {}, data.runs.length > 1 ? "Settings that differ" : "Settings that are this run's own"),
    differencesPart(data),
    data.runs.map(settingsPart),
  ];
}

function timePart(run, several) {
  const { phases } = run.spent;
  if (!phases.length) return el("p", { class: "quiet" }, `${run.name}: no time was recorded yet.`);
  const rows = phases.map((phase) => [
    phase.name,
    seconds(phase.seconds),
    percent(phase.share),
    `${number(phase.per_step)} s`,
    el("td", { class: "barcell" }, el("div", { class: "bar", style: { width: `${100 * phase.share}%` } })),
  ]);
  const [first] = phases,
    advised = phases.filter((phase) => phase.advice);
  return el(
    "article",
    { class: "card" },
    several && el("h3", {}, ...shown(run.name)),
    table(["phase", "time", "share", "per step", ""], rows, [1, 2, 3]),
    el(
      "p",
      {},
      el("strong", {}, "The next second is best saved in "),
      el("strong", {}, ...shown(first.name)),
      `: without it the run would have taken ${seconds(run.spent.seconds - first.seconds)} instead of ${seconds(run.spent.seconds)}.`,
    ),
    advised.length > 0 &&
      el(
        "ul",
        {},
        advised.map((phase) => el("li", {}, el("code", {}, phase.name), ": ", ...shown(phase.advice), ".")),
      ),
    run.spent.throughput.length > 0 &&
      el(
        "dl",
        { class: "facts" },
        run.spent.throughput.map(([what, value]) => el("div", {}, el("dt", {}, what), el("dd", {}, value))),
      ),
  );
}

function memoryPart(run, several) {
  const moments = Object.entries(run.memory.moments);
  const kinds = [...new Set(moments.flatMap(([, found]) => Object.keys(found)))];
  const ranks = Object.entries(run.memory.ranks),
    held = [...new Set(ranks.flatMap(([, found]) => Object.keys(found)))];
  return el(
    "article",
    { class: "card" },
    several && el("h3", {}, ...shown(run.name)),
    ranks.length > 0 &&
      table(
        ["GiB, the most over the run", ...held],
        ranks.map(([rank, found]) => [rank, ...held.map((kind) => number(found[kind]))]),
        held.map((_, i) => i + 1),
      ),
    moments.length > 0 &&
      table(
        ["vLLM beside the learner, MiB, the most over the run (device_free: the least)", ...kinds],
        moments.map(([moment, found]) => [moment, ...kinds.map((kind) => number(found[kind]))]),
        kinds.map((_, i) => i + 1),
      ),
    run.memory.said.map((text) => el("p", {}, ...shown(`${text[0].toUpperCase()}${text.slice(1)}.`))),
    run.checkpoints && el("p", {}, ...shown(run.checkpoints)),
  );
}

function experimentPart(experiment) {
  const arms = experiment.arms;
  return el(
    "section",
    {},
    el("h3", {}, ...shown(experiment.title + (experiment.quick ? " (quick: proves nothing)" : ""))),
    el("p", { class: "quiet" }, ...shown(experiment.source)),
    el(
      "ul",
      {},
      experiment.verdicts.map((sentence) => el("li", {}, ...shown(sentence))),
    ),
    table(experiment.table[0], experiment.table.slice(1), experiment.table[0].map((_, i) => i).slice(1)),
    el(
      "div",
      { class: "legend" },
      arms.map((name, arm) =>
        el("span", { class: "badge" }, stroke({ colour: COLOURS[arm % COLOURS.length], dash: "solid" }), " ", ...shown(name)),
      ),
    ),
    el(
      "div",
      { class: "grid charts" },
      experiment.charts.map((chart) => chartCard(chart, arms)),
    ),
    experiment.excerpts.map(({ arm, passages }) =>
      el(
        "details",
        {},
        el("summary", {}, ...shown(`Passages that reflect: ${arm}`)),
        passages.map(({ question, passage, said }) => el("pre", {}, ...shown(`${question}\n\n${passage}\n\n(${said})`))),
      ),
    ),
  );
}
