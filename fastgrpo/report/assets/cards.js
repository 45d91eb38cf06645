// What stands around a chart: its words, a legend whose entries are buttons, and its numbers as a table.

function stroke({ colour, dash }) {
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "line");
  const gaps = { solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2", longdash: "10 3" }[dash];
  for (const [key, value] of Object.entries({ width: 22, height: 8, "aria-hidden": "true" })) svg.setAttribute(key, value);
  for (const [key, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, stroke: colour, "stroke-width": 3, "stroke-dasharray": gaps }))
    line.setAttribute(key, value);
  svg.append(line);
  return svg;
}

function toggle(key, name, style) {
  const press = (event) => {
    const button = event.currentTarget,
      off = drawing.hidden.has(key);
    if (off) drawing.hidden.delete(key);
    else drawing.hidden.add(key);
    button.setAttribute("aria-pressed", String(off));
    redraw();
  };
  return el(
    "button",
    { type: "button", "aria-pressed": String(!drawing.hidden.has(key)), onclick: press, title: name },
    stroke(style),
    el("span", {}, ...shown(name)),
  );
}

function legend(chart, runs) {
  if (chart.names.length < 2) return null;
  const style = (name) =>
    runs.length > 1
      ? { colour: css("--quiet"), dash: DASHES[chart.names.indexOf(name) % DASHES.length] }
      : look(chart, { name, run: 0 }, runs);
  return el(
    "div",
    { class: "legend", role: "group", "aria-label": `Lines of ${chart.title}` },
    chart.names.map((name) => toggle(`${chart.id}/${name}`, name, style(name))),
  );
}

function runLegend(runs) {
  if (runs.length < 2) return null;
  return el(
    "div",
    { class: "legend", role: "group", "aria-label": "Runs" },
    runs.map((name, run) => toggle(`run/${run}`, name, { colour: COLOURS[run % COLOURS.length], dash: "solid" })),
  );
}

function ends(chart, runs) {
  return chart.lines
    .filter((line) => !line.faint)
    .map((line) => {
      const known = line.y.map((y, i) => [line.x[i], y]).filter((point) => point[1] !== null);
      const [first, last] = [known[0], known[known.length - 1]];
      return [
        runs.length > 1 ? `${runs[line.run]}, ${line.name}` : line.name,
        `${written(first[1], chart.form)} (${first[0]})`,
        `${written(last[1], chart.form)} (${last[0]})`,
        written(Math.min(...known.map((p) => p[1])), chart.form),
        written(Math.max(...known.map((p) => p[1])), chart.form),
      ];
    });
}

function chartCard(chart, runs) {
  chart.names = [...new Set(chart.lines.map((line) => line.name))];
  const plot = el("div", { class: "plot", role: "img", "aria-label": `${chart.title}; its numbers follow as a table` });
  const numbers = el(
    "details",
    {
      ontoggle: (event) => {
        if (event.currentTarget.open)
          fill(
            event.currentTarget,
            el("summary", {}, "Numbers"),
            table(
              ["", `first (${card.chart.axis || "at"})`, `last (${card.chart.axis || "at"})`, "least", "most"],
              ends(card.chart, card.runs),
              [1, 2, 3, 4],
            ),
          );
      },
    },
    el("summary", {}, "Numbers"),
  );
  const words = el("div", {});
  const made = el("figure", { class: "card chart", id: `chart-${chart.id}` }, words, plot, numbers);
  const card = { chart, runs, plot, near: false, made, words };
  drawing.cards.set(chart.id, card);
  describe(card);
  drawing.near ??= new IntersectionObserver(
    (seen) => {
      for (const { target, isIntersecting } of seen) {
        const found = [...drawing.cards.values()].find((each) => each.plot === target);
        if (found && isIntersecting && !found.near) {
          found.near = true;
          draw(found);
        }
      }
    },
    { rootMargin: "400px" },
  );
  drawing.near.observe(plot);
  return made;
}

function describe(card) {
  fill(
    card.words,
    el("figcaption", {}, el("h3", {}, ...shown(card.chart.title)), el("small", {}, ...shown(card.chart.about))),
    legend(card.chart, card.runs),
  );
}

// The same cards with newer numbers, for a run that goes on; a chart that is new gets a card.
function updateCharts(place, charts, runs) {
  for (const chart of charts) {
    const card = drawing.cards.get(chart.id);
    if (!card) {
      place.append(chartCard(chart, runs));
      continue;
    }
    const before = card.chart.names.join("/");
    chart.names = [...new Set(chart.lines.map((line) => line.name))];
    Object.assign(card, { chart, runs });
    if (chart.names.join("/") !== before) describe(card);
    draw(card);
  }
}
