"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  /* Charts: uPlot draws what the page's JSON says, in the page's colours. */

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function short(value) {
    if (value === null || value === undefined) return "–";
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(1).replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  }

  function size(value) {
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (Math.abs(value) < 1000) return Number(value.toPrecision(3)) + " " + unit;
      value /= 1000;
    }
    return Number(value.toPrecision(3)) + " TB";
  }

  function shown(chart, value) {
    if (value === null || value === undefined) return "–";
    if (chart.levels.length) return chart.levels[Math.round(value)] || "";
    if (chart.unit === "bytes") return size(value);
    if (chart.unit === "share") return Number((value * 100).toPrecision(3)) + " %";
    return short(value);
  }

  function cut(text, most) {
    return text.length <= most ? text : text.slice(0, most - 1) + "…";
  }

  /* Numbers far apart need a logarithmic axis; it cannot show zeros, which stay bars without height. */
  function isLogarithmic(chart) {
    if (chart.kind !== "bars" || chart.unit === "share") return false;
    const found = chart.series.flatMap((one) => one.values).filter((one) => one > 0);
    return chart.names.length === 0 ? false : found.length > 1 && chart.series.length > 1 && Math.max(...found) / Math.min(...found) > 100;
  }

  function whiskers(chart, front) {
    return (plot, at) => {
      const one = chart.series[at - 1];
      if (!one || one.high.length === 0) return;
      const context = plot.ctx;
      context.save();
      context.strokeStyle = front;
      context.lineWidth = Math.max(1, devicePixelRatio);
      one.high.forEach((high, place) => {
        if (high === null) return;
        const x = plot.valToPos(chart.x[place], "x", true) - (chart.series.length > 1 ? barWidth(plot, chart) / 2 : 0);
        const top = plot.valToPos(high, "y", true);
        const bottom = plot.valToPos(one.low[place], "y", true);
        const arm = 5 * devicePixelRatio;
        context.beginPath();
        context.moveTo(x, top); context.lineTo(x, bottom);
        context.moveTo(x - arm, top); context.lineTo(x + arm, top);
        context.moveTo(x - arm, bottom); context.lineTo(x + arm, bottom);
        context.stroke();
      });
      context.restore();
    };
  }

  function barWidth(plot, chart) {
    const places = Math.max(1, chart.names.length);
    const widest = 48 * devicePixelRatio;
    return Math.min(widest, (plot.bbox.width / places) * (chart.series.length > 1 ? 0.38 : 0.8));
  }

  function series(chart, at) {
    const one = chart.series[at];
    const stroke = colour("--series-" + (at % 3));
    const made = { label: one.label, stroke: stroke, width: 2, value: (_plot, value) => shown(chart, value) };
    if (chart.kind === "bars") {
      const several = chart.series.length > 1;
      made.fill = stroke;
      made.width = 0;
      made.points = { show: false };
      made.paths = uPlot.paths.bars({ size: [several ? 0.38 : 0.8, 48], align: several ? (at === 0 ? -1 : 1) : 0 });
    } else if (chart.kind === "steps" && at > 0) {
      made.width = 0;
      made.paths = () => null;
      made.points = { show: true, size: 11, fill: stroke };
    } else if (chart.kind === "steps") {
      made.paths = uPlot.paths.stepped({ align: 1 });
      made.points = { show: false };
    } else {
      made.points = { show: true, size: 7, fill: stroke };
      made.spanGaps = true;
    }
    return made;
  }

  function axes(chart, width) {
    const soft = colour("--soft");
    const grid = { stroke: colour("--line"), width: 1 };
    const font = "12px system-ui, sans-serif";
    const across = { stroke: soft, grid: { show: chart.times, stroke: grid.stroke, width: 1 }, ticks: grid, font: font };
    if (!chart.times) {
      const room = width - 70;
      const each = Math.max(1, Math.ceil((chart.names.length * 62) / room));
      const most = Math.max(4, Math.floor(room / Math.ceil(chart.names.length / each) / 7.5) - 1);
      across.splits = () => chart.x.filter((_one, place) => place % each === 0);
      across.values = (_plot, splits) => splits.map((one) => cut(chart.names[one] || "", most));
    }
    if (chart.times) {
      across.values = (_plot, splits, _axis, _space, step) => {
        let day = "";
        return splits.map((one) => {
          const [date, hours] = new Date(one * 1000).toISOString().slice(0, 16).split("T");
          if (step >= 86400) {
            const year = date.slice(0, 4);
            const shown = date.slice(5) + (day === year ? "" : "\n" + year);
            day = year;
            return shown;
          }
          const shown = hours + (day === date ? "" : "\n" + date);
          day = date;
          return shown;
        });
      };
    }
    const levels = chart.levels.length;
    const longest = levels ? Math.max(...chart.levels.map((one) => Math.min(one.length, 14))) : 8;
    const up = { stroke: soft, grid: grid, ticks: grid, font: font, size: Math.max(44, 14 + longest * 7) };
    up.values = (_plot, splits) => splits.map((one) => (one === null ? "" : cut(shown(chart, one), 14)));
    if (levels) {
      const each = Math.max(1, Math.ceil(levels / 9));
      up.splits = () => chart.levels.map((_one, place) => place).filter((place) => place % each === 0);
    }
    if (isLogarithmic(chart)) {
      up.splits = (_plot, _axis, low, high) => {
        const found = [];
        for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high) + 1e-9; power++) found.push(Number("1e" + power));
        return found;
      };
    }
    return [across, up];
  }

  function scales(chart) {
    const x = { time: chart.times };
    if (!chart.times) x.range = [-0.6, chart.names.length - 0.4];
    else if (chart.x.length === 1) x.range = [chart.x[0] - 43200, chart.x[0] + 43200];
    const y = {};
    if (isLogarithmic(chart)) y.distr = 3;
    else if (chart.levels.length) y.range = [-0.5, chart.levels.length - 0.5];
    else if (chart.kind === "bars") {
      const ends = chart.series.flatMap((one) => [...one.values, ...one.high]).filter((one) => one !== null);
      y.range = [0, Math.max(...ends, 0) * 1.08 || 1];
    }
    return { x: x, y: y };
  }

  function draw(figure) {
    const chart = data.charts[Number(figure.dataset.chart)];
    const place = figure.querySelector(".plot");
    const width = Math.max(200, place.clientWidth);
    const logarithmic = isLogarithmic(chart);
    const first = { label: chart.times ? "time" : "at", value: (plot, value) => (value === null ? "–" : chart.times ? new Date(value * 1000).toISOString().slice(0, 16).replace("T", " ") : chart.names[value] || "") };
    const options = {
      width: width, height: 230, scales: scales(chart), axes: axes(chart, width),
      tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1000), "Etc/UTC"),
      series: [first, ...chart.series.map((_one, at) => series(chart, at))],
      cursor: { drag: { x: false, y: false } },
      hooks: { drawSeries: [whiskers(chart, colour("--front"))] },
    };
    const columns = chart.series.map((one) => (logarithmic ? one.values.map((value) => (value > 0 ? value : null)) : one.values));
    place.replaceChildren();
    return new uPlot(options, [chart.x, ...columns], place);
  }

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  let drawn = new Map();

  function drawAll() {
    for (const plot of drawn.values()) plot.destroy();
    drawn = new Map(figures.map((figure) => [figure, draw(figure)]));
  }

  let width = window.innerWidth;
  drawAll();
  dark.addEventListener("change", drawAll);
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      drawAll();
    }
  });

  /* The table of checks: a hundred rows at a time, so that ten thousand open at once. */

  const table = document.getElementById("cases");
  if (!table) return;
  const STEP = 100;
  const texts = data.checks.texts;
  const heads = ["Outcome", "Kind", "Check", "Data", "Call", "Requests", "ms", "Why"];
  /* A column in which all rows are alike says nothing, but for what was checked and how it ended. */
  const used = heads.map((_head, column) => column === 0 || column === 2 || data.checks.rows.some((row) => row[column] !== data.checks.rows[0][column]) || (column === 7 && texts[data.checks.rows[0][7]] !== ""));
  const columns = heads.map((_head, column) => column).filter((column) => used[column]);
  const cell = (row, column) => (column === 5 || column === 6 ? row[column] : texts[row[column]]);
  const search = document.getElementById("search");
  const outcome = document.getElementById("outcome");
  const more = document.getElementById("more");
  const body = table.tBodies[0];
  const found = data.checks.rows.map((row) => columns.map((column) => cell(row, column)).join("\n").toLowerCase());
  let sorted = null;
  let rows = [];
  let upTo = 0;

  function append(count) {
    const fresh = document.createDocumentFragment();
    for (const place of rows.slice(upTo, upTo + count)) {
      const row = data.checks.rows[place];
      const line = document.createElement("tr");
      line.dataset.outcome = texts[row[0]];
      for (const column of columns) {
        const made = document.createElement("td");
        const value = cell(row, column);
        if (column < 2 || (column > 3 && column < 7)) made.className = "short";
        made.textContent = column === 5 || column === 6 ? (value === 0 ? "–" : String(value)) : value;
        line.append(made);
      }
      fresh.append(line);
    }
    body.append(fresh);
    upTo = Math.min(rows.length, upTo + count);
    more.hidden = upTo >= rows.length;
    document.getElementById("shown").textContent = upTo + " of " + rows.length + (rows.length === data.checks.rows.length ? "" : " found");
  }

  function refresh() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows = data.checks.rows.map((_row, place) => place).filter(
      (place) => (!outcome.value || texts[data.checks.rows[place][0]] === outcome.value) && words.every((word) => found[place].includes(word)));
    if (sorted !== null) {
      const { column, factor } = sorted;
      rows.sort((one, other) => {
        const a = cell(data.checks.rows[one], column);
        const b = cell(data.checks.rows[other], column);
        if ((a === 0) !== (b === 0)) return a === 0 ? 1 : -1; // what nobody measured stays last
        return factor * (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0) || one - other;
      });
    }
    body.replaceChildren();
    upTo = 0;
    append(STEP);
  }

  for (const column of columns) {
    const head = document.createElement("th");
    const button = document.createElement("button");
    head.scope = "col";
    button.type = "button";
    button.textContent = heads[column];
    button.addEventListener("click", () => {
      const factor = sorted !== null && sorted.column === column ? -sorted.factor : 1;
      sorted = { column: column, factor: factor };
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", factor > 0 ? "ascending" : "descending");
      refresh();
    });
    button.tabIndex = 0;
    head.append(button);
    table.tHead.rows[0].append(head);
  }
  search.addEventListener("input", refresh);
  outcome.addEventListener("change", refresh);
  more.addEventListener("click", () => {
    const next = upTo;
    append(STEP);
    const line = body.rows[next];
    if (line) {
      line.tabIndex = -1;
      line.focus({ preventScroll: true });
    }
  });
  const form = document.querySelector(".filter");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  table.hidden = false;
  refresh();
})();
