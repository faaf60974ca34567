// Records per second, and the p99 of their latency beside what it should be, drawn with D3 (the global `d3`).

import { follow, read, shown } from "/follow.js";

const panels = [
  { path: "series.records_per_s", title: "records per second", top: 20, colour: "steelblue" },
  { path: "series.p99_ms", title: "p99 of the latency, ms (dashed: the objective)", top: 175, colour: "darkorange" },
];
const [left, right, height] = [60, 790, 110];
const svg = d3.select("#chart");

function draw(flow, state) {
  const totals = ["totals.finished", "totals.rejected"].map((path) => read(flow, path));
  d3.select("#said").text(
    `${read(flow, "group")} on ${read(flow, "topic")}: ${shown(read(flow, "records_per_s"), "records/s")}, ` +
      `p99 ${shown(read(flow, "latency.p99_ms"), "ms")}, ${totals[0]} finished, ${totals[1]} rejected` +
      (state === "lost" ? " (as last heard: the engine does not answer)" : ""),
  );
  const times = read(flow, "series.at_ms");
  const x = d3.scaleTime(d3.extent(times), [left, right]);
  svg.selectAll("*").remove();
  for (const { path, title, top, colour } of panels) {
    const values = read(flow, path);
    const objective = path === "series.p99_ms" ? read(flow, "objective_ms") : 0;
    const y = d3.scaleLinear([0, Math.max(objective, d3.max(values) ?? 0, 1)], [top + height, top]).nice();
    const line = d3
      .line((_, at) => x(times[at]), (value) => y(value))
      .defined((value) => value !== null); // unknown is a gap, not 0
    svg.append("text").attr("x", left).attr("y", top - 6).text(title);
    svg.append("g").attr("transform", `translate(${left},0)`).call(d3.axisLeft(y).ticks(4));
    svg.append("path").attr("fill", "none").attr("stroke", colour).attr("stroke-width", 2).attr("d", line(values));
    if (objective)
      svg.append("path").attr("stroke", "currentColor").attr("stroke-dasharray", "4").attr("d", `M${left},${y(objective)}H${right}`);
  }
  if (times.length) svg.append("g").attr("transform", "translate(0,285)").call(d3.axisBottom(x));
}

follow("flow", draw);
