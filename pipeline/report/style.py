"""ANYWHERE. The style sheet of the report: system fonts, figures that line up, one accent, light and dark."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --soft: #60656d; --rule: #e4e4e0; --fill: #f1f1ee;
  --model: #2457d6; --trees: #c2690b; --linear: #0f8a7e; --majority: #8b8f97; --bad: #b3382c; --good: #23814a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131517; --card: #1b1e21; --ink: #e8e9ea; --soft: #9aa0a8; --rule: #2e3237; --fill: #25292d;
    --model: #7aa5ff; --trees: #f0a54a; --linear: #4fc9ba; --majority: #8b9099; --bad: #f0877b; --good: #6ccf95;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1040px; margin: 0 auto; padding: 44px 24px 80px; }
header { margin-bottom: 26px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 46px 0 4px; padding-top: 18px;
  border-top: 1px solid var(--rule); }
h3 { font-size: 14px; margin: 20px 0 6px; }
p { margin: 4px 0 12px; max-width: 88ch; }
ul.note { margin: 0 0 8px; padding-left: 18px; } ul.note b { font-weight: 500; color: var(--ink); }
em { font-style: normal; } .good { color: var(--good); } .bad { color: var(--bad); }
.note, .sub { color: var(--soft); font-size: 13.5px; }
.sub code { font-size: 12.5px; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12.5px; }
.verdict { font-size: 18px; max-width: none; border-radius: 0 8px 8px 0; margin: 18px 0 0; padding: 12px 16px;
  border-left: 3px solid var(--model);
  background: var(--card); }
.verdict.lost { border-color: var(--trees); }
.verdict.failed { border-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 22px 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 26px; font-weight: 600; letter-spacing: -0.02em; line-height: 1.25; }
.tile span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 8px 0 14px; background: var(--card); font-size: 14px; }
th, td { padding: 7px 12px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: 12.5px; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
tr.own td { font-weight: 600; }
td.best { color: var(--good); font-weight: 600; }
.words :is(th, td):last-child { text-align: left; white-space: normal; min-width: 17em; color: var(--soft); }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); gap: 18px;
  margin: 12px 0; }
figure { margin: 0; display: flex; flex-direction: column; background: var(--card); border: 1px solid var(--rule);
  border-radius: 8px;
  padding: 14px 16px 8px; }
figcaption { font-weight: 600; font-size: 14px; }
svg { display: block; width: 100%; height: auto; margin-top: auto; padding-top: 6px; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .base { stroke: var(--soft); stroke-width: 1; }
svg .reference { fill: none; stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; }
svg text { fill: var(--soft); font-size: 11.5px; }
svg .axis { font-style: italic; }
svg .line polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
svg .line circle { fill: var(--card); stroke: currentColor; stroke-width: 2; }
svg .line circle.marked { fill: currentColor; }
.model { color: var(--model); } .trees { color: var(--trees); } .linear { color: var(--linear); }
.majority { color: var(--majority); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 12.5px; margin-top: 2px; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px;
  background: currentColor;
  vertical-align: middle; margin-right: 6px; }
.confusion { display: grid; flex: 1; grid-template-columns: auto repeat(var(--classes), 1fr); gap: 4px;
  margin-top: 14px; font-size: 13px; }
.confusion > div { padding: 6px 10px; color: var(--soft); align-self: center; }
.confusion .cell { align-self: stretch; display: flex; flex-direction: column; justify-content: center;
  padding: 26px 14px; border-radius: 6px; text-align: center; color: var(--ink);
  background: color-mix(in srgb, var(--model) calc(var(--share) * 62%), var(--fill)); }
.confusion .cell b { display: block; font-size: 20px; font-weight: 600; }
.confusion.small { gap: 2px; font-size: 11.5px; overflow-x: auto; }
.confusion.small > div { padding: 4px 5px; } .confusion.small .cell b { font-size: 12.5px; }
svg .cells rect { fill: currentColor; }
.bar { display: flex; height: 16px; border-radius: 4px; overflow: hidden; background: var(--fill);
  margin: 12px 0 8px; }
.bar i { display: block; min-width: 2px; }
.meter { display: inline-block; width: 110px; height: 7px; border-radius: 4px; background: var(--fill);
  vertical-align: middle; margin-right: 10px; }
.meter i { display: block; height: 100%; border-radius: 4px; background: var(--model); }
.published { background: var(--model); } .duplicates { background: var(--linear); }
.rejected { background: var(--trees); }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px;
  overflow-x: auto; }
@media (max-width: 520px) {
  main { padding: 26px 14px 60px; }
  th, td { padding: 6px 8px; }
  .words :is(th, td):last-child { min-width: 12em; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
  svg text { font-size: 14px; }
  .confusion > div { padding: 4px 5px; } .confusion .cell { padding: 18px 4px; }
}
@media print { main { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
"""
