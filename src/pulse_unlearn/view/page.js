// The page of `pulse view`: reads JSON from its own server, writes text only, never markup.
"use strict";

const main = document.getElementById("main");
const where = document.getElementById("where");
const live = document.getElementById("live");
const FAST = 3000, SLOW = 15000;
const ANY = "any";
const CELL = ["scenario", "method", "seed", "request", "condition"];
const LABELS = {
  scenario: "Scenario", method: "Method", seed: "Seed", request: "After request", condition: "Condition",
  set: "Set", modality: "Modality", reading: "Right by reading", outcome: "Answer after",
};
const VERDICTS = {
  correct: "right", wrong: "wrong", refused: "refused", unparsable: "unreadable", cut_off: "cut off, unreadable",
};
const IN_WORDS = { correct: "names it", wrong: "names another", refused: "refused", unparsable: "names none of them", cut_off: "cut off" };
const MARKS = { correct: "✓", wrong: "✗", refused: "–", unparsable: "?", cut_off: "…" };
const STATES = {
  complete: "complete", running: "running", interrupted: "interrupted", failed: "stopped by a plug-in", unreadable: "not readable",
};
const state = { timer: 0, asked: 0, overview: null, drawn: "", filtersOpen: window.innerWidth > 736 };

// --- small helpers

function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function put(...children) {
  main.classList.remove("busy");
  main.replaceChildren(...children.filter(Boolean));
}

async function ask(path) {
  let response;
  try {
    response = await fetch(path, { headers: { Accept: "application/json" } });
  } catch {
    throw new Error("The server does not answer. Was `pulse view` ended?");
  }
  const content = await response.json();
  if (!response.ok) throw new Error((content.problems || [response.statusText]).join(" "));
  return content;
}

const enc = encodeURIComponent;
const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1));

function ago(seconds) {
  const past = Date.now() / 1000 - seconds;
  if (!seconds) return "";
  if (past < 90) return "just now";
  if (past < 5400) return `${Math.round(past / 60)} minutes ago`;
  if (past < 129600) return `${Math.round(past / 3600)} hours ago`;
  return `${Math.round(past / 86400)} days ago`;
}

function problems(lines) {
  if (!lines || !lines.length) return null;
  return h("div", { class: "notice", role: "alert" }, h("ul", {}, lines.map((line) => h("li", {}, line))));
}

function notice(error) {
  return problems([error.message]);
}

// --- where we are: #/ and #/run/KEY?filters

function place() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const steps = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { key: steps[0] === "run" ? steps[1] : "", query: new URLSearchParams(query || "") };
}

function addressOf(key, query) {
  const text = query.toString();
  return `#/run/${enc(key)}${text ? "?" + text : ""}`;
}

async function show() {
  clearTimeout(state.timer);
  const { key, query } = place();
  const asked = ++state.asked;
  const fresh = () => asked === state.asked;
  try {
    if (key) await showRun(key, query, fresh);
    else await showRuns(fresh);
  } catch (error) {
    if (fresh()) {
      state.drawn = "";
      put(notice(error), h("p", {}, h("a", { href: "#/" }, "All runs")));
      later(SLOW, show);
    }
  }
}

function later(time, what) {
  clearTimeout(state.timer);
  state.timer = setTimeout(() => (document.hidden ? later(time, what) : what()), time);
}

// --- the list of runs

function way(run) {
  if (run.state === "unreadable") return h("div", { class: "way" });
  return h("div", { class: "way" },
    h("progress", { max: Math.max(run.planned, 1), value: run.done, "aria-label": `Stages of ${run.name}` }),
    h("span", { class: "small" }, `${run.done} of ${run.planned} stages`));
}

function badge(run) {
  return h("span", { class: `state ${run.state}` }, STATES[run.state] || run.state);
}

function told(run) {
  const parts = [run.why, run.working.length ? `working on ${run.working.join(", ")}` : "", run.changed ? `changed ${ago(run.changed)}` : ""];
  return parts.filter(Boolean).join(" · ");
}

async function showRuns(fresh) {
  const content = await ask("/api/runs");
  const order = (run) => [run.state === "running" ? 0 : run.state === "unreadable" ? 2 : 1, -run.changed];
  content.runs.sort((a, b) => order(a)[0] - order(b)[0] || order(a)[1] - order(b)[1]);
  if (!fresh()) return;
  document.title = "PULSE runs";
  where.textContent = content.root;
  const drawn = JSON.stringify(content) + content.runs.map(told).join();
  if (drawn !== state.drawn) {
    const focused = document.activeElement && document.activeElement.id;
    put(
      h("h1", {}, "Runs"),
      content.runs.length
        ? h("ul", { class: "runs" }, content.runs.map((run) => h("li", {},
            h("div", {}, h("h2", {}, h("a", { href: `#/run/${enc(run.key)}`, id: `run-${run.key}` }, run.name)), badge(run)),
            way(run),
            h("div", { class: "links" }, run.report ? h("a", { href: `/file/${enc(run.key)}/report.html` }, "Report") : null),
            told(run) ? h("p", { class: "small" }, told(run)) : null)))
        : h("p", { class: "quiet" }, "There is no run in this folder yet. `pulse run smoke` makes a first one in a minute."));
    if (focused) document.getElementById(focused)?.focus();
    state.drawn = drawn;
  }
  later(content.runs.some((run) => run.state === "running") ? FAST : SLOW, show);
}

// --- one run

async function showRun(key, query, fresh) {
  main.classList.add("busy");
  const overview = await ask(`/api/run/${enc(key)}`);
  if (!fresh()) return;
  state.overview = overview;
  document.title = `${overview.name} · PULSE`;
  where.replaceChildren(h("a", { href: "#/" }, "Runs"), ` / ${overview.name}`);
  if (overview.state === "unreadable" || !overview.cells.length) {
    put(heading(overview), problems(overview.problems),
      overview.state === "unreadable" ? null : h("p", { class: "quiet" }, "The plan compares no models."), about(overview));
    return;
  }
  const chosen = settle(overview, query);
  if (chosen.toString() !== query.toString()) history.replaceState(null, "", addressOf(key, chosen));
  const tab = chosen.get("tab");
  const content = await ask(`/api/run/${enc(key)}/${tab}?${chosen}`).catch((error) => ({ failed: error.message }));
  if (!fresh()) return;
  const focused = document.activeElement && main.contains(document.activeElement) ? document.activeElement.id : "";
  const { selectionStart: caret, value: typed } = document.activeElement;
  const open = [...main.querySelectorAll("details[open][id]")].map((one) => one.id);
  const body = content.failed
    ? overview.state === "complete" ? problems([content.failed]) : h("p", { class: "quiet" }, tab === "results" ? "There are no results yet: they are written when all stages are complete." : content.failed)
    : tab === "results" ? results(content) : answers(content, overview, key);
  put(heading(overview), problems(overview.problems), about(overview), tabs(key, chosen), filters(overview, chosen), body);
  open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  if (focused) {
    const again = document.getElementById(focused);
    again?.focus();
    if (again?.type === "search") {
      again.value = typed; // more may have been typed since it was asked for
      again.setSelectionRange(caret, caret);
    }
  }
  live.textContent = content.failed || `${content.total} found, page ${content.page} of ${content.pages}`;
  if (overview.state === "running") later(FAST, () => follow(key));
}

// While a run goes on, only its head changes, until another stage is complete.
async function follow(key) {
  try {
    const overview = await ask(`/api/run/${enc(key)}`);
    if (place().key !== key) return;
    if (overview.done !== state.overview.done || overview.state !== state.overview.state) return void show();
    main.querySelector(".runhead")?.replaceWith(heading(overview));
    later(FAST, () => follow(key));
  } catch (error) {
    main.prepend(notice(error));
  }
}

function heading(run) {
  return h("div", { class: "runhead" },
    h("div", { class: "head" }, h("h1", {}, run.name), badge(run),
      run.report ? h("a", { href: `/file/${enc(run.key)}/report.html` }, "Report") : null,
      run.files.includes("results.csv") ? h("a", { href: `/file/${enc(run.key)}/results.csv` }, "results.csv") : null),
    run.state === "complete" ? null : way(run),
    h("p", { class: "small" }, told(run)));
}

function about(run) {
  return h("div", {},
    run.stages.length ? h("details", { id: "stages" }, h("summary", {}, `Stages (${run.done} of ${run.planned} complete)`),
      h("ul", { class: "stages" }, run.stages.map((one) => h("li", { class: one.state }, one.name, h("span", { class: "unseen" }, `: ${one.state}`))))) : null,
    run.files.length ? h("details", { id: "files" }, h("summary", {}, `Files (${run.files.length})`),
      h("ul", { class: "files" }, run.files.map((name) => h("li", {}, h("a", { href: `/file/${enc(run.key)}/${name.split("/").map(enc).join("/")}` }, name))))) : null);
}

function tabs(key, chosen) {
  return h("nav", { class: "tabs", "aria-label": "What to look at" }, ["answers", "results"].map((tab) => {
    const query = new URLSearchParams(chosen);
    query.set("tab", tab);
    query.delete("page");
    return h("a", { href: addressOf(key, query), id: `tab-${tab}`, "aria-current": chosen.get("tab") === tab ? "page" : null }, tab === "answers" ? "Answers" : "Results by cell");
  }));
}

// Fill in what the address leaves open, and drop what this run does not have.
function settle(overview, query) {
  const chosen = new URLSearchParams(query);
  if (!["answers", "results"].includes(chosen.get("tab"))) chosen.set("tab", "answers");
  const bare = !CELL.some((name) => chosen.has(name));
  for (const name of CELL) {
    const options = optionsOf(overview, chosen, name);
    if (chosen.get(name) === ANY || options.includes(chosen.get(name))) continue;
    const usual = name === "request" ? options[options.length - 1] : options.includes("plain") ? "plain" : options[0];
    chosen.set(name, usual === undefined ? ANY : usual);
  }
  if (bare && !chosen.has("set")) chosen.set("set", "forget");
  return chosen;
}

function optionsOf(overview, chosen, name) {
  const above = CELL.slice(0, CELL.indexOf(name));
  const fitting = overview.cells.filter((cell) => above.every((other) => [ANY, String(cell[other])].includes(chosen.get(other))));
  const asked = fitting.filter((cell) => cell.asked);
  const found = [...new Set((asked.length ? asked : fitting).map((cell) => String(cell[name])))];
  return name === "seed" || name === "request" ? found.sort((a, b) => a - b) : found;
}

function change(name, values, replace) {
  const { key, query } = place();
  query.delete(name);
  [values].flat().filter((value) => value !== "").forEach((value) => query.append(name, value));
  if (name !== "page") query.delete("page");
  if (replace) {
    history.replaceState(null, "", addressOf(key, query));
    show();
  } else location.hash = addressOf(key, query);
}

function select(name, options, value, any) {
  return h("label", {}, LABELS[name], h("select", { id: `f-${name}`, onchange: (event) => change(name, event.target.value) },
    any ? h("option", { value: any, selected: value === any || value === null }, "any") : null,
    options.map(([own, title]) => h("option", { value: own, selected: String(own) === value }, title))));
}

function filters(overview, chosen) {
  const { titles } = overview;
  const titled = (name, own) => [own, (titles[name] && titles[name][own]) || (name === "request" && own === "0" ? "0 (before)" : own)];
  const isAnswers = chosen.get("tab") === "answers";
  const cells = CELL.map((name) => {
    const options = optionsOf(overview, chosen, name);
    if (name === "condition" && options.length < 2 && chosen.get(name) !== ANY) return null;
    return select(name, options.map((own) => titled(name, own)), chosen.get(name), ANY);
  });
  let timer = 0;
  const search = h("input", {
    type: "search", id: "f-search", value: chosen.get("search") || "", placeholder: "name, question, option or answer", autocomplete: "off",
    oninput: (event) => { clearTimeout(timer); timer = setTimeout(() => change("search", event.target.value.trim(), true), 400); },
  });
  const kinds = chosen.getAll("kinds");
  const told = ["method", "seed", "request", "set"].map((name) => {
    const own = chosen.get(name);
    const title = own && own !== ANY ? titled(name, own)[1] : ANY;
    return name === "method" || name === "set" ? (title === ANY ? `any ${name}` : title) : `${name} ${title}`;
  });
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); change("search", search.value.trim(), true); } },
    h("div", { class: "filters" }, cells,
      select("set", Object.entries(titles.set), chosen.get("set"), ANY),
      select("modality", Object.entries(titles.modality), chosen.get("modality"), ANY),
      isAnswers ? select("reading", Object.entries(titles.reading), chosen.get("reading") || "strict") : null,
      isAnswers ? select("outcome", [["right", "right"], ["not_right", "not right"]], chosen.get("outcome"), ANY) : null,
      isAnswers ? h("label", { class: "search" }, "Search", search) : null),
    isAnswers ? h("fieldset", { class: "kinds" }, h("legend", {}, "Only"),
      Object.entries(titles.kinds).map(([name, { title, what }]) => h("label", { title: what },
        h("input", { type: "checkbox", id: `k-${name}`, checked: kinds.includes(name),
          onchange: (event) => change("kinds", event.target.checked ? [...kinds, name] : kinds.filter((one) => one !== name)) }), ` ${title}`))) : null);
  // Folded on a narrow screen, where they would hide the answers; as the reader left them else.
  return h("details", { class: "folded", open: state.filtersOpen, ontoggle: (event) => { state.filtersOpen = event.target.open; } },
    h("summary", {}, "Filters ", h("span", { class: "small" }, told.join(" · "))), form);
}

function pager(content, id) {
  const go = (number) => { change("page", String(number)); main.querySelector(".bar")?.scrollIntoView(); };
  const first = (content.page - 1) * content.size;
  const last = Math.min(first + content.size, content.total);
  const button = (name, number, title, off) => h("button", { type: "button", id: `${id}-${name}`, disabled: off, onclick: () => go(number) }, title);
  return h("div", { class: "bar" },
    h("p", { id: `${id}-count` }, content.total ? `${(first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${content.total.toLocaleString("en")}` : "Nothing passes these filters."),
    content.pages > 1 ? h("div", { class: "buttons" },
      button("first", 1, "First", content.page === 1), button("previous", content.page - 1, "Previous", content.page === 1),
      button("next", content.page + 1, "Next", content.page === content.pages), button("last", content.pages, "Last", content.page === content.pages)) : null);
}

// --- results by cell

function results(content) {
  const { titles } = state.overview;
  const title = (kind, name) => (titles[kind] && titles[kind][name]) || name.replaceAll("_", " ");
  const columns = Object.entries(content.columns);
  const model = (row) => row.condition === "retain_model" ? "Retain model" : row.request === 0 && row.condition === "plain" ? "before"
    : `${title("method", row.method)} · ${title("scope", row.scope)}`;
  const detail = (row) => [title("scenario", row.scenario), `seed ${row.seed}`, row.request ? `request ${row.request}` : "", ["plain", "retain_model"].includes(row.condition) ? "" : row.condition].filter(Boolean).join(" · ");
  return h("div", {}, problems(content.problems), pager(content, "top"),
    content.total ? h("table", { class: "stack" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Model"), h("th", { scope: "col" }, "Set"), columns.map(([, head]) => h("th", { scope: "col", class: "num" }, head)), h("th", { scope: "col" }, "Verdict"))),
      h("tbody", {}, content.rows.map((row) => h("tr", {},
        h("th", { scope: "row" }, model(row), h("span", { class: "ci" }, detail(row))),
        h("td", { "data-label": "Set" }, h("span", {}, title("set", row.set), h("span", { class: "ci" }, row.modality === "all" ? `${row.questions} questions` : `${title("modality", row.modality)}, ${row.questions} questions`))),
        columns.map(([name, head]) => number(row.numbers[name], head)),
        h("td", { "data-label": "Verdict" }, row.verdict || "–"))))) : null,
    h("p", { class: "small" }, "Percent; small: 95 % interval of this one seed, none with fewer than ten people. “Highest” is the reading that finds most."));
}

function number(found, head) {
  const [value, low, high] = found || [null, null, null];
  return h("td", { class: "num", "data-label": head }, h("span", {}, percent(value), low === null ? null : h("span", { class: "ci" }, `${percent(low)} – ${percent(high)}`)));
}

// --- answers

function answers(content, overview, key) {
  const reading = place().query.get("reading") || "strict";
  return h("div", {}, problems(content.problems), pager(content, "top"),
    content.items.map((item, position) => card(item, overview, key, reading, position)),
    content.items.length > 3 ? pager(content, "end") : null,
    h("p", { class: "small" }, "Keys: ", h("kbd", {}, "/"), " search, ", h("kbd", {}, "n"), " next page, ", h("kbd", {}, "p"), " previous page."));
}

function models(item, overview) {
  const { cell } = item;
  const known = overview.cells.find((one) => ["scenario", "method", "seed", "request", "condition"].every((name) => one[name] === cell[name]));
  const method = overview.titles.method[cell.method] || cell.method;
  const unlearned = `after ${method}${cell.request > 1 ? `, request ${cell.request}` : ""}`;
  const after = cell.condition === "plain" ? unlearned : cell.condition.replaceAll("_", " ");
  return ["before", after, known && known.retain_model ? "retain model" : "never knew them", unlearned];
}

function card(item, overview, key, reading, position) {
  const { titles } = overview;
  const names = models(item, overview);
  const asked = item.forms.find((form) => form.asked_as === "options" && form.rotation === 0) || item.forms[0];
  const there = [0, 3, 1, 2].filter((at) => item.forms.some((form) => form.answers[at]));
  const sets = item.sets.map((name) => titles.set[name] || name).join(", ");
  const who = item.name || item.individual || "General question";
  const tags = item.kinds.map((name) => h("span", { class: "tag" }, titles.kinds[name].title));
  return h("article", { class: item.picture ? "item" : "item bare", "aria-label": `Question ${item.id}` },
    item.picture ? h("img", { src: `/picture/${enc(key)}/${enc(item.picture)}`, alt: `Picture shown with question ${item.id}`, loading: "lazy" }) : null,
    h("div", {},
      h("p", { class: "meta" }, h("b", {}, h("bdi", {}, who)), ` · ${[sets, titles.modality[item.modality] || item.modality, titles.scenario[item.cell.scenario], `seed ${item.cell.seed}`, item.id].filter(Boolean).join(" · ")}`, tags),
      item.hint ? h("p", { class: "small" }, h("bdi", {}, item.hint)) : null,
      h("p", { class: "question" }, item.question ? h("bdi", {}, item.question) : h("span", { class: "quiet" }, "The text of this question is not known here.")),
      asked ? options(asked) : null,
      h("dl", { class: ["", "models one", "models two", "models", "models four"][there.length] || "models" }, there.map((at) => h("div", {}, h("dt", {}, names[at]), h("dd", {}, said(asked && asked.answers[at]), " ", byReading(item, at, reading))))),
      asked && asked.prompt ? h("details", { id: `prompt-${position}-${item.id}` }, h("summary", {}, "Prompt"), prompt(asked)) : null,
      h("details", { id: `all-${position}-${item.id}` }, h("summary", {}, `Every stored answer (${item.forms.length} ${item.forms.length === 1 ? "way" : "ways"} of asking)`), everyForm(item, names, there), readings(item, names, there, titles))));
}

function options(form) {
  return h("ul", { class: "options" }, form.options.map(({ letter, text }) => h("li", { class: letter === form.truth ? "true" : null },
    h("b", {}, letter), " ", h("bdi", {}, text), letter === form.truth ? h("span", { "aria-label": "true option" }, " ✓") : null)));
}

function said(answer, askedAs) {
  if (!answer) return h("span", { class: "small" }, "not asked");
  return [h("span", { class: "said" }, h("bdi", {}, answer.text || "(empty)")), " ", h("span", { class: `mark ${kindOf(answer.verdict)}` }, `${MARKS[answer.verdict] || ""} ${(askedAs === "words" ? IN_WORDS : VERDICTS)[answer.verdict] || answer.verdict}`)];
}

const kindOf = (verdict) => ({ correct: "right", refused: "refused", unparsable: "unreadable", cut_off: "unreadable" })[verdict] || "wrong";

function byReading(item, at, reading) {
  if (reading === "strict" || item.right[at] === null) return null;
  const right = item.right[at];
  return h("span", { class: `mark ${right ? "right" : ""}` }, `· ${state.overview.titles.reading[reading].toLowerCase()}: ${right ? "right" : "not right"}`);
}

function prompt(form) {
  return h("pre", { tabindex: "0" }, form.system ? `${form.system}\n\n${form.prompt}` : form.prompt);
}

function everyForm(item, names, there) {
  const way = (form) => form.asked_as === "words" ? "In words, no options shown" : form.rotation === 0 ? "The file’s order" : `Options moved by ${form.rotation}`;
  return h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Asked"), there.map((at) => h("th", { scope: "col" }, names[at])))),
    h("tbody", {}, item.forms.map((form) => h("tr", {},
      h("th", { scope: "row" }, way(form), h("span", { class: "ci" }, form.options.map(({ letter, text }) => `${letter} ${text}${letter === form.truth ? " ✓" : ""}`).join(", ")),
        form !== item.forms[0] && form.prompt ? h("details", {}, h("summary", {}, "Prompt"), prompt(form)) : null),
      there.map((at) => h("td", { "data-label": names[at] }, h("span", {}, said(form.answers[at], form.asked_as),
        form.answers[at] && form.answers[at].probability !== null ? h("span", { class: "ci" }, `true option ${percent(form.answers[at].probability)} %`) : null)))))));
}

function readings(item, names, there, titles) {
  const shown = Object.entries(titles.reading).filter(([name]) => there.some((at) => item.readings[at][name] !== null && item.readings[at][name] !== undefined));
  const value = (found) => (found === null || found === undefined ? "–" : found === 1 ? "✓ right" : found === 0 ? "✗ not right" : percent(found) + " %");
  return h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Reading"), there.map((at) => h("th", { scope: "col" }, names[at])))),
    h("tbody", {}, shown.map(([name, title]) => h("tr", {}, h("th", { scope: "row" }, title), there.map((at) => h("td", { "data-label": names[at] }, value(item.readings[at][name])))))));
}

// --- keys

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const target = { "/": "f-search", n: "top-next", p: "top-previous" }[event.key];
  const element = target && document.getElementById(target);
  if (!element || element.disabled) return;
  event.preventDefault();
  if (event.key === "/") {
    element.closest("details").open = true;
    element.focus();
  }
  else element.click();
});

window.addEventListener("hashchange", show);
show();
