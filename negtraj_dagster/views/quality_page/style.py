"""How the quality page looks."""

from negtraj_dagster.pages import POLICY

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1f2328;--pale:#646a72;--box:#f5f6f7;--line:#d9dce0;--positive:#0072b2;
--negative:#d55e00;--unknown:#7a6fa6;--track:#eceef0;--mark:#fff0c2;--mark-line:#c98a00;--chip:#fff;--link:#0059b3}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e3e5e8;--pale:#9aa1a9;--box:#1c2024;--line:#363c43;
--positive:#56b4e9;--negative:#f0a04b;--unknown:#b3a6e0;--track:#262b30;--mark:#3b3112;--mark-line:#e6b422;--chip:#14171a;
--link:#7cc4ff}}
body{background:var(--bg);color:var(--fg);max-width:70rem;margin:1.5rem auto 6rem}a{color:var(--link)}
h2{margin:3rem 0 .4rem;padding-top:.6rem;border-top:2px solid var(--line)}h3{margin:2rem 0 .3rem}h4{margin:1.3rem 0 .3rem}
table{font-variant-numeric:tabular-nums;font-size:13.5px}td,th{border:0;border-bottom:1px solid var(--line);
padding:.28rem .55rem;vertical-align:top}th{font-weight:600;color:var(--pale);font-size:12px}.over{overflow-x:auto}
td.name,td.left,th.left{text-align:left}td.left{white-space:nowrap}td.wide{text-align:left;overflow-wrap:anywhere}td.zero,.pale{color:var(--pale)}
tr.flag td.name code{font-style:italic}.reason{color:var(--pale);font-size:12.5px;display:block}
nav{background:var(--box);border-radius:.5rem;padding:.7rem 1.1rem;margin:1rem 0;columns:2}nav ul{margin:0;padding-left:1.1rem}
nav li{break-inside:avoid}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1rem 0}.tile{background:var(--box);border-radius:.5rem;padding:.6rem 1rem;
min-width:8rem}.tile b{display:block;font-size:1.55rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--pale);font-size:12.5px}.tile.positive b{color:var(--positive)}.tile.negative b{color:var(--negative)}
.tile.unknown b{color:var(--unknown)}
svg text{font:12px system-ui,sans-serif;fill:var(--fg)}svg .pale{fill:var(--pale)}svg .end{text-anchor:end}
svg .middle{text-anchor:middle}svg .key{font-weight:600}.chart{max-width:100%;height:auto;display:block;margin:.6rem 0}
rect.positive,text.positive{fill:var(--positive)}rect.negative,text.negative{fill:var(--negative)}
rect.unknown,text.unknown{fill:var(--unknown)}rect.faint{opacity:.33}rect.track{fill:var(--track)}rect.stripe{fill:var(--box)}
.axis{stroke:var(--pale)}.grid{stroke:var(--line)}.dot{fill:var(--fg)}.hole{fill:var(--track)}.link{stroke:var(--fg);stroke-width:2}
.line{fill:none;stroke-width:2.4}.line.positive{stroke:var(--positive)}.line.negative{stroke:var(--negative)}
.line.unknown{stroke:var(--unknown)}svg.bar{width:64px;height:9px;vertical-align:middle;margin-right:.3rem}
td.bars{white-space:nowrap}td.bars span{display:inline-block;min-width:3.1em}table.verdicts th{text-align:left}
table.verdicts td{text-align:left}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem 1.6rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:.15em;margin:0 .3em 0 .9em;vertical-align:-.05em}
.legend i.positive{background:var(--positive)}.legend i.negative{background:var(--negative)}
.legend i.unknown{background:var(--unknown)}.legend i.faint{opacity:.33}
.chip{border:1.5px solid;border-radius:.8em;padding:0 .55em;font-size:12px;font-weight:600}
.chip.positive{color:var(--positive)}.chip.negative{color:var(--negative)}.chip.unknown{color:var(--unknown)}
.fate{color:var(--pale);font-size:12px;background:var(--box);border-radius:.3em;padding:.05em .45em;margin-left:.3em;
white-space:nowrap}
details.rollout{border:1px solid var(--line);border-radius:.45rem;margin:.35rem 0}summary{padding:.35rem .7rem;
overflow-wrap:anywhere}details[open]>summary{border-bottom:1px solid var(--line)}.inside{padding:.5rem .9rem .9rem}
.facts{display:grid;grid-template-columns:minmax(0,3fr) minmax(9rem,1fr);gap:1rem}dl{display:grid;
grid-template-columns:max-content minmax(0,1fr);gap:.1rem .9rem;margin:.2rem 0;font-size:13px;align-content:start}
dt{color:var(--pale)}dd{margin:0;overflow-wrap:anywhere}
.turn{border-left:3px solid var(--line);padding:.1rem 0 .1rem .8rem;margin:.55rem 0}.turn.agent{border-color:var(--pale)}
.turn.marked{border-color:var(--mark-line);border-left-width:6px;background:var(--mark)}
.who{font-size:12px;color:var(--pale);font-weight:600}
.mark{color:var(--fg);margin-left:.8em;font-weight:600;overflow-wrap:anywhere}
.turn pre{background:none;margin:.1rem 0;padding:.1rem 0;overflow:hidden;overflow-wrap:anywhere}
.turn.other pre{color:var(--pale)}pre.reasoning{font-style:italic;color:var(--pale)}pre.call::before{content:"⚙ "}
.cut{font-style:italic;color:var(--pale)}.note{background:var(--mark);color:var(--fg);border-radius:.4rem}
@media(max-width:800px){nav{columns:1}.grid2{grid-template-columns:1fr}.facts{grid-template-columns:1fr}}
"""
HEAD = (
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
)
