// Charts by plotly, each drawn when it comes near the window.
// With several runs a colour is a run and a dash is a line; with one, a colour is a line.

const COLOURS = ["#3b82c4", "#d97b1c", "#3f9e5a", "#cc4b4b", "#8d6cc0", "#94735f", "#c9629c", "#7d828c", "#9a9a2e", "#2a9fb0"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const SVG = "http://www.w3.org/2000/svg";

const drawing = {
  library: null, // plotly, once it is unpacked
  hidden: new Set(), // names of lines that were switched off, by chart, and of runs
  cards: new Map(), // by id of the chart
  near: null,
};

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function isShown(chart, line, runs) {
  return !drawing.hidden.has(`run/${line.run}`) && !drawing.hidden.has(`${chart.id}/${line.name}`);
}

function look(chart, line, runs) {
  const place = chart.names.indexOf(line.name);
  return runs.length > 1
    ? { colour: COLOURS[line.run % COLOURS.length], dash: line.faint ? "solid" : DASHES[place % DASHES.length] }
    : { colour: COLOURS[place % COLOURS.length], dash: "solid" };
}

// Plotly reads tags in names: they are shown as they are.
function plain(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function traces(chart, runs) {
  return chart.lines
    .filter((line) => isShown(chart, line, runs))
    .flatMap((line) => {
      const { colour, dash } = look(chart, line, runs);
      const few = line.y.filter((value) => value !== null).length < 40;
      const trace = {
        x: line.x,
        y: line.y,
        type: "scatter",
        name: plain(runs.length > 1 ? `${runs[line.run]} ${line.name}` : line.name),
        mode: few && !line.faint ? "lines+markers" : "lines",
        line: { color: colour, dash, width: line.faint ? 0.8 : 1.8 },
        marker: { size: 5 },
        opacity: line.faint ? 0.35 : 1,
        connectgaps: true,
        hoverinfo: line.faint ? "skip" : "all",
      };
      if (chart.stacked) Object.assign(trace, { stackgroup: "all", mode: "lines", line: { color: colour, width: 0.5 }, fillcolor: colour });
      if (chart.bars) Object.assign(trace, { type: "bar", mode: undefined, marker: { color: colour }, offsetgroup: String(line.run) });
      if (line.low?.some((low, i) => low !== line.high[i])) {
        trace.error_y = {
          type: "data",
          symmetric: false,
          color: colour,
          thickness: 1,
          width: 3,
          array: line.y.map((y, i) => line.high[i] - y),
          arrayminus: line.y.map((y, i) => y - line.low[i]),
        };
      }
      return line.printed ? [trace, printed(line, trace.name)] : trace;
    });
}

// What the paper prints, as a mark on the bar.
function printed(line, name) {
  const marker = { symbol: "line-ew", size: 26, line: { color: css("--ink"), width: 3 } };
  return {
    x: line.x,
    y: line.printed,
    name: `${name} in the paper`,
    type: "scatter",
    mode: "markers",
    marker,
    offsetgroup: String(line.run),
  };
}

function layout(chart) {
  const axis = { color: css("--quiet"), gridcolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
  return {
    margin: { l: 46, r: 10, t: 6, b: 36 },
    showlegend: false,
    scattermode: chart.bars ? "group" : "overlay",
    hovermode: "x unified",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--ink"), size: 12, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
    xaxis: chart.bars
      ? { ...axis, type: "category", showgrid: false }
      : {
          ...axis,
          title: { text: plain(chart.axis), standoff: 4 },
          nticks: 8,
          range: reach(
            chart.lines.map((line) => line.x),
            0.02,
          ),
        },
    yaxis: {
      ...axis,
      tickformat: chart.form === "share" ? ",.2~%" : "",
      hoverformat: chart.form === "share" ? ".2~%" : ".4~g",
      exponentformat: "power",
      rangemode: chart.stacked || chart.bars ? "tozero" : "normal",
      range: level(chart),
    },
  };
}

// From the least to the greatest of some lists, with a margin.
function reach(lists, margin) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of lists.flat()) {
    if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  const room = high > low ? margin * (high - low) : 0.5;
  return [low - room, high + room];
}

// Of numbers that are all one plotly would show the whole from -1 to 1: here they lie half way up. Undefined leaves the range to plotly.
function level(chart) {
  const values = chart.lines.flatMap((line) => line.y).filter((value) => value !== null);
  return values.every((value) => value === values[0]) && values[0] > 0 && !chart.lines[0].low ? [0, 2 * values[0]] : undefined;
}

function draw(card) {
  if (!drawing.library || !card.near) return;
  const config = { responsive: true, displayModeBar: false, doubleClick: "reset" };
  drawing.library.react(card.plot, traces(card.chart, card.runs), layout(card.chart), config);
  card.plot.dataset.drawn = "yes";
}

function redraw() {
  for (const card of drawing.cards.values()) draw(card);
}
