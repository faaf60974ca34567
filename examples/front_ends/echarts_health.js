// How far behind each partition is, and why records were rejected, drawn with ECharts (the global `echarts`).

import { follow, read, shown } from "/follow.js";

const lag = echarts.init(document.getElementById("lag"));
const rejected = echarts.init(document.getElementById("rejected"));
const said = document.getElementById("said");

function bars(chart, title, names, values) {
  chart.setOption({
    title: { text: names.length ? title : `${title}: none` },
    animation: false,
    aria: { enabled: true },
    grid: { containLabel: true },
    tooltip: { renderMode: "richText" }, // text as text: reasons and names are no markup
    xAxis: { type: "category", data: names },
    yAxis: { type: "value", minInterval: 1 },
    // what is unknown has no bar, and says so in its label
    series: [{ type: "bar", data: values.map((value) => value ?? "-") }],
  });
}

function draw(health, state) {
  said.textContent =
    `${read(health, "state")}: ${shown(read(health, "lag_records"), "records behind")}, the oldest ` +
    `${shown(read(health, "lag_s"), "s")} old (allowed: ${shown(read(health, "max_age_s"), "s")}). ` +
    read(health, "summary[].text").join(" ") +
    (state === "lost" ? " (as last heard: the engine does not answer)" : "");
  const behind = read(health, "partitions[].lag_records");
  const names = read(health, "partitions[].partition").map((number, at) => `${number}${behind[at] === null ? " (unknown)" : ""}`);
  bars(lag, `records behind, by partition (${names.length} of ${read(health, "partitions_known")})`, names, behind);
  bars(rejected, "rejected records, by reason", read(health, "rejected[].reason"), read(health, "rejected[].records"));
}

addEventListener("resize", () => [lag, rejected].forEach((chart) => chart.resize()));
follow("health", draw);
