/*
 * The console: asks the JSON API of its own origin, and shows what it says. Everything that came with mail is untrusted:
 * text becomes text nodes, never markup, and no address or reply becomes a link or a style.
 */
"use strict";
const POLL_MS = 2000, SAMPLES = 120, PAGE = 100;
const AGES = ["≤ 5 min", "≤ 10 min", "≤ 20 min", "≤ 40 min", "≤ 80 min", "≤ 160 min", "≤ 320 min", "≤ 640 min",
  "≤ 1280 min", "older"];
const SHORT = new Set(["State", "Next", "Received", "When", "Stage", "Until"]); /* columns that stay on one line */
const SERIES = [
  ["accepted", "messages accepted", f => f["posthouse_smtp_messages_total"]],
  ["delivered", "recipients delivered", f => f['posthouse_delivery_recipients_total{outcome="delivered"}']],
  ["deferred", "recipients deferred", f => f['posthouse_delivery_recipients_total{outcome="deferred"}']],
  ["failed", "recipients failed", f => f['posthouse_delivery_recipients_total{outcome="failed"}']],
];
const state = { session: {}, view: "", samples: [], before: null, shown: new Map(), cursor: "", filter: "", id: "" };
const $ = id => document.getElementById(id);

/* -- making things -- */
function el(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "click") e.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) e.setAttribute(name, value);
  }
  for (const child of children.flat())
    if (child !== null && child !== undefined) e.append(child instanceof Node ? child : String(child));
  return e;
}
function svg(tag, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
}
/* The same content again is not put in anew: focus and selection stay where they are. */
function put(id, key, make) {
  const text = JSON.stringify(key);
  if (state.shown.get(id) === text) return;
  const held = document.activeElement && $(id).contains(document.activeElement) ? document.activeElement.dataset.key : null;
  state.shown.set(id, text);
  $(id).replaceChildren(...[make()].flat());
  if (held) [...$(id).querySelectorAll("[data-key]")].find(e => e.dataset.key === held)?.focus();
}
/* columns: [label, row => text or node, isNumber] */
function table(label, columns, rows, nothing) {
  if (!rows.length) return el("p", { class: "muted" }, nothing);
  const head = el("tr", { role: "row" }, columns.map(([name, , number]) =>
    el("th", { role: "columnheader", scope: "col", class: number ? "number" : null }, name || el("span", { class: "hidden" }, "Actions"))));
  const body = rows.map(row => el("tr", { role: "row" }, columns.map(([name, value, number]) => {
    const shown = value(row);
    const empty = shown === "" || shown === null || shown === undefined;
    return el("td", { role: "cell", "data-label": name, class: (number ? "number" : SHORT.has(name) ? "short" : "") + (empty ? " empty" : "") },
      el("span", {}, shown));
  })));
  return el("table", { role: "table", "aria-label": label }, el("thead", { role: "rowgroup" }, head),
    el("tbody", { role: "rowgroup" }, body));
}
const count = n => n === undefined || n === null ? "" : Number(n).toLocaleString("en");
const recipients = n => count(n) + (Number(n) === 1 ? " recipient" : " recipients");
const nonzero = n => n ? count(n) : "";
function span_of(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " d";
}
const since = ms => ms ? span_of(Date.now() - ms) + " ago" : "";
const until = ms => ms ? (ms > Date.now() ? "in " + span_of(ms - Date.now()) : "now") : "";
const clock = ms => ms ? new Date(ms).toLocaleString() : "";
const sender = text => text === "" ? "<>" : text;
const size = n => n === undefined ? "" : n < 1024 ? n + " B" : n < 1048576 ? (n / 1024).toFixed(1) + " KiB" : (n / 1048576).toFixed(1) + " MiB";
const message_link = id => id && /^[0-9A-Z]{13}$/.test(id) ? el("a", { href: "#message/" + id, class: "mono", "data-key": "m" + id }, id) : "";
function reply(r) {
  if (!r) return "";
  const text = r.text || "", again = r.enhanced && text.startsWith(r.enhanced); /* servers repeat it in the text */
  return [r.code, again ? "" : r.enhanced, text].filter(Boolean).join(" ");
}
function say(text) { $("said").textContent = text; }
/* What went wrong: of an action it stays until the next one or another view, of a view until it can be shown again. */
function problem(text, stays) { state.stays = Boolean(text && stays); if ($("problem").textContent !== (text || "")) $("problem").textContent = text || ""; }
function told(text) { if ($("link").textContent !== text) $("link").textContent = text; }

/* -- asking -- */
class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}
async function read_answer(response) {
  let answer = {};
  try { answer = await response.json(); } catch (e) { /* not JSON: the status tells */ }
  if (!response.ok) throw new Refused(response.status, answer.error || "the server says " + response.status);
  return answer;
}
async function ask(path, poll) {
  return read_answer(await fetch("/api/v1/" + path, { credentials: "same-origin", cache: "no-store", headers: poll ? { "X-Poll": "1" } : {} }));
}
async function change(path, fields) {
  return read_answer(await fetch("/api/v1/" + path, { method: "POST", credentials: "same-origin", cache: "no-store",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": state.session.csrf || "" }, body: JSON.stringify(fields) }));
}
const query = fields => "?" + new URLSearchParams(Object.entries(fields).filter(([, v]) => v)).toString();
const is_operator = () => state.session.role === "operator" || state.session.role === "admin";
const may_read = () => state.session.signed_in || state.session.users === false;

/* -- overview -- */
function take_sample(figures) {
  const now = { at: performance.now(), values: SERIES.map(([, , value]) => value(figures) || 0) };
  const before = state.before;
  state.before = now;
  if (!before || now.at - before.at < 200) return;
  const seconds = (now.at - before.at) / 1000;
  state.samples.push(now.values.map((v, i) => Math.max(0, v - before.values[i]) / seconds));
  if (state.samples.length > SAMPLES) state.samples.shift();
}
const rate = n => n >= 100 ? Math.round(n).toLocaleString("en") : n.toFixed(1);
function draw_chart() {
  const top = Math.max(1, ...state.samples.flat());
  const step = 10 ** Math.floor(Math.log10(top)), most = Math.ceil(top / step) * step;
  const parts = [0.5, 1].map(y => svg("line", { x1: 0, x2: 600, y1: 160 - 155 * y, y2: 160 - 155 * y }));
  SERIES.forEach((_, i) => parts.push(svg("polyline", { class: "s" + (i + 1), points: state.samples.map((s, n) =>
    (600 - (state.samples.length - 1 - n) * 600 / (SAMPLES - 1)).toFixed(1) + "," + (160 - 155 * s[i] / most).toFixed(1)).join(" ") })));
  $("chart").replaceChildren(...parts);
  $("chart-top").textContent = most.toLocaleString("en") + " a second";
  const last = state.samples[state.samples.length - 1] || SERIES.map(() => 0);
  $("legend").replaceChildren(...SERIES.map(([name, label], i) => {
    const mark = svg("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" });
    mark.append(svg("line", { x1: 0, x2: 28, y1: 4, y2: 4, class: "s" + (i + 1) }));
    return el("li", {}, mark, " " + label + ": ", el("b", { id: "rate-" + name }, rate(last[i])), " a second");
  }));
}
function show_status(answer) {
  const f = answer.figures || {};
  $("node").textContent = answer.text || "";
  const tiles = [["Messages in the queue", f.queue_messages], ["Recipients ready", f.queue_ready],
    ["Under way", f.queue_assigned], ["Sessions of clients", f.sessions ?? f.posthouse_smtp_sessions],
    ["Connections out", f.posthouse_delivery_connections], ["Accepted", f.posthouse_smtp_messages_total],
    ["Delivered", SERIES[1][2](f)], ["Failed", SERIES[3][2](f)]];
  put("tiles", tiles, () => tiles.map(([name, n]) => el("div", {}, el("dt", {}, name), el("dd", {}, count(n ?? 0)))));
  take_sample(f);
  draw_chart();
  state.uptime = f.uptime_seconds;
}
function show_nodes(answer, status) {
  const rows = answer.rows && answer.rows.length ? answer.rows : [{ destination: status.text || "this node", note: "up " + span_of(1000 * (state.uptime || 0)) }];
  put("nodes", rows, () => table("Nodes", [["Node", r => r.destination], ["Tells", r => r.note || r.reason || ""]], rows, "None."));
}
function show_shards(answer) {
  const rows = answer.rows || [];
  put("shards", rows, () => table("Shards", [["Shard", r => r.shard ?? r.index, true], ["Messages", r => count(r.messages ?? r.count), true],
    ["Ready", r => count(r.ready), true], ["Under way", r => count(r.assigned), true], ["Deferred", r => count(r.deferred), true],
    ["Held", r => count(r.held), true]], rows, "No shard is open here."));
}
function show_suspensions(answer) {
  const rows = (answer.rows || []).map(r => ({ name: r.site || r.destination, scope: r.scope || (r.site ? "site" : "domain"), until: r.resume_ms,
    reason: r.reason, by: r.actor }));
  put("suspensions", [rows, is_operator()], () => table("Suspended domains and sites", [["Name", r => r.name], ["Kind", r => r.scope],
    ["Until", r => r.until ? clock(r.until) : "resumed"], ["Reason", r => r.reason], ["By", r => r.by]].concat(is_operator() ?
    [["", r => el("button", { type: "button", "data-key": "r" + r.scope + r.name, click: () => confirm_change("resume", { [r.scope]: r.name }, "Resume " + r.name) },
      "Resume", el("span", { class: "hidden" }, " " + r.name))]] : []), rows, "Nothing is suspended."));
}

/* -- queue -- */
function suspend_button(scope, name) {
  return el("button", { type: "button", "data-key": "s" + scope + name, click: () => confirm_change("suspend", { [scope]: name }, "Suspend " + name) },
    "Suspend", el("span", { class: "hidden" }, " " + name));
}
function show_shape(answer) {
  const rows = answer.rows || [], total = r => (r.ages || []).reduce((a, b) => a + b, 0) || r.count;
  put("shape", [rows, is_operator()], () => table("Queue by destination and age", [
    ["Destination", r => r.destination === "TOTAL" ? el("b", {}, "All") : el("a", { href: "#search?" + encodeURIComponent("domain:" + r.destination), "data-key": "d" + r.destination }, r.destination)],
    ["Total", r => count(total(r)), true],
    ...AGES.map((name, i) => [name, r => nonzero((r.ages || [])[i]), true])]
    .concat(is_operator() ? [["", r => r.destination === "TOTAL" ? "" : suspend_button("domain", r.destination)]] : []), rows, "Nothing waits."));
}
function show_sites(answer) {
  const rows = (answer.rows || []).map(r => ({ ...r, site: r.site || r.destination }));
  put("sites", [rows, is_operator()], () => table("Busiest sites", [["Site", r => r.site], ["Ready", r => count(r.ready), true],
    ["Under way", r => count(r.assigned), true], ["Connections allowed", r => count(r.concurrency), true],
    ["", r => r.suspended ? el("span", { class: "bad" }, "suspended") : r.resume_ms ? "rests, " + until(r.resume_ms) : is_operator() ? suspend_button("site", r.site) : ""]],
    rows, "No site has mail now."));
}

/* -- search -- */
function result_table(rows) {
  return table("Recipients found", [["Message", r => message_link(r.message)], ["From", r => sender(r.sender)], ["To", r => r.recipient],
    ["State", r => r.held ? "held" : r.state], ["Attempts", r => count(r.attempts), true], ["Received", r => since(r.received_ms)],
    ["Next", r => r.state === "deferred" ? until(r.due_ms) : ""], ["Last reply", r => reply(r.last)]], rows, "Nothing was found.");
}
async function search(filter, more) {
  if (!more) { state.cursor = ""; state.rows = []; }
  const answer = await ask("queue" + query({ filter, limit: PAGE, after: state.cursor }));
  state.filter = filter;
  state.rows = state.rows.concat(answer.rows || []);
  state.cursor = answer.cursor || "";
  $("more").hidden = !state.cursor;
  $("search-count").textContent = state.rows.length ? recipients(state.rows.length) + (state.cursor ? ", and more" : "") : "";
  put("results", state.rows, () => result_table(state.rows));
  show_actions("search-actions", filter ? { filter } : null, filter ? "all that matches " + filter : "");
}
function show_actions(id, what, name) {
  put(id, [what, is_operator()], () => !what || !is_operator() ? [] : [["hold", "Hold"], ["release", "Release"], ["retry", "Retry now"]].map(([verb, label]) =>
    el("button", { type: "button", "data-key": verb, click: () => confirm_change(verb, what, label + ": " + name) }, label)));
}

/* -- one message -- */
async function show_message(id) {
  state.id = id;
  $("h-message").replaceChildren("Message ", el("span", { class: "mono" }, id));
  $("header-part").hidden = !is_operator(); /* the words of a message are not for viewers */
  $("header").hidden = true;
  $("header").textContent = "";
  for (const part of ["envelope", "recipients", "trace"]) state.shown.delete(part);
  const [show, trace, why] = await Promise.allSettled([ask("msg/" + id), ask("msg/" + id + "/trace"), ask("msg/" + id + "/why")]);
  if (show.status === "rejected" && trace.status === "rejected") throw show.reason;
  const s = show.value || {}, e = s.envelope;
  const pairs = e ? [["From", sender(e.sender)], ["Received", clock(e.received_ms)], ["Size", size(e.size)],
    ["Client", [e.client_name, e.client].filter(Boolean).join(" ")], ["HELO", e.helo], ["Protocol", e.protocol], ["ENVID", e.envid]] : [];
  put("envelope", pairs, () => e ? pairs.filter(([, v]) => v).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]) :
    [el("dt", {}, "Gone"), el("dd", {}, "The queue does not hold it any more.")]);
  put("recipients", s.rows || [], () => table("Recipients", [["To", r => r.recipient], ["State", r => r.held ? "held" : r.state],
    ["Attempts", r => count(r.attempts), true], ["Next", r => r.state === "deferred" ? until(r.due_ms) : ""], ["Last reply", r => reply(r.last)],
    ["Server", r => r.last && r.last.remote]], s.rows || [], "None in the queue."));
  $("why").textContent = why.value ? [why.value.text, ...(why.value.steps || []).map(x => x.text)].filter(Boolean).join(" ") : why.reason.message;
  const traces = (trace.value && trace.value.traces) || [], names = new Map((s.rows || []).map(r => [r.index, r.recipient]));
  put("trace", traces, () => table("History", [["When", t => clock(t.at_ms)], ["What", t => t.kind], ["Recipients", t => (t.recipients || []).map(i => names.get(i) || "number " + (i + 1)).join(", ")],
    ["Text", t => [t.text, reply(t.result)].filter(Boolean).join(" · ")], ["Server", t => t.result && t.result.remote],
    ["Next", t => clock(t.next_ms)]], traces, "No history is kept of it."));
  show_actions("message-actions", e ? { message: id } : null, "message " + id);
}

/* -- failures, changes -- */
function show_failures(answer) {
  const rows = answer.failures || [];
  if (answer.missed) $("failures-note").textContent = count(answer.missed) + " events went by too fast to be looked at.";
  put("failures", rows, () => table("Recent failures", [["When", r => new Date(r.time).toLocaleString()], ["Message", r => message_link(r.id)],
    ["From", r => sender(r.from)], ["To", r => r.to || r.recipients], ["Server", r => r.remote], ["About", r => r.category],
    ["Reply", r => reply({ code: r.code === "0" ? "" : r.code, enhanced: r.status, text: r.text })]], rows, "Nothing has failed since the start."));
}
function show_changes(answer) {
  const rows = answer.audits || [];
  put("changes", rows, () => table("Changes", [["When", r => clock(r.at_ms)], ["Who", r => r.actor], ["What", r => r.verb], ["Of", r => [r.what, r.target].filter(Boolean).join(" → ")],
    ["Stage", r => r.stage], ["Recipients", r => count(r.count), true], ["Reason", r => r.reason], ["From", r => r.origin]], rows, "No changes are recorded."));
}

/* -- signing in, and changes with a confirmation -- */
function show_session(session) {
  state.session = session;
  const button = (label, click) => el("button", { type: "button", click }, label);
  $("who").replaceChildren(...(session.signed_in ? [el("span", {}, session.name + " (" + session.role + ")"), button("Sign out", sign_out)] :
    session.users ? [button("Sign in", open_sign_in)] : [el("span", { class: "muted" }, "read-only")]));
  state.shown.clear();
}
function open_sign_in() {
  $("sign-in-problem").textContent = "";
  if (!$("sign-in").open) $("sign-in").showModal();
  $("name").focus();
}
async function sign_in(event) {
  event.preventDefault();
  const submit = $("sign-in-form").querySelector("[type=submit]");
  submit.disabled = true;
  $("sign-in-problem").textContent = "";
  try {
    const session = await change("session", { name: $("name").value, password: $("password").value });
    $("sign-in").close();
    show_session(session);
    say("Signed in as " + session.name);
    problem("");
    await show_view(true);
  } catch (e) {
    $("sign-in-problem").textContent = sentence(e);
    $("password").focus();
  } finally {
    $("password").value = "";
    submit.disabled = false;
  }
}
async function sign_out() {
  try { await change("session/end", {}); } catch (e) { problem(sentence(e)); }
  location.reload();
}
const sentence = e => { const t = e instanceof Refused ? e.message : "the server does not answer"; return t.charAt(0).toUpperCase() + t.slice(1) + "."; };
let wanted = null;
async function confirm_change(verb, what, title) {
  wanted = { verb, what };
  const suspends = verb === "suspend";
  $("h-confirm").textContent = title;
  $("confirm-text").textContent = "";
  $("confirm-for").hidden = !suspends;
  $("for").value = $("reason").value = $("confirm-problem").textContent = "";
  $("reason").required = suspends || verb === "hold";
  $("confirm-go").textContent = { suspend: "Suspend", resume: "Resume", hold: "Hold", release: "Release", retry: "Retry now" }[verb];
  $("confirm").showModal();
  (suspends ? $("for") : $("reason")).focus();
  if (!what.filter && !what.message) return;
  try {
    const answer = await change(verb, { ...what, dry_run: true });
    $("confirm-text").textContent = "This is about " + recipients(answer.count ?? 0) + ".";
  } catch (e) { $("confirm-problem").textContent = sentence(e); }
}
async function do_change(event) {
  event.preventDefault();
  const fields = { ...wanted.what };
  if ($("reason").value.trim()) fields.reason = $("reason").value.trim();
  if (wanted.verb === "suspend" && $("for").value.trim()) fields.for = $("for").value.trim();
  $("confirm-go").disabled = true;
  try {
    const answer = await change(wanted.verb, fields);
    $("confirm").close();
    say("Done" + (answer.count !== undefined ? ": " + recipients(answer.count) + "." : "."));
    await show_view(true);
  } catch (e) { $("confirm-problem").textContent = sentence(e); }
  $("confirm-go").disabled = false;
}

/* -- views -- */
const views = {
  overview: async () => {
    const status = await ask("status", true);
    show_status(status);
    const [nodes, shards, suspensions] = await Promise.allSettled([ask("nodes", true), ask("shards", true), ask("suspensions?limit=1000", true)]);
    show_nodes(nodes.value || {}, status);
    show_shards(shards.value || {});
    show_suspensions(suspensions.value || {});
  },
  queue: async () => {
    const [shape, sites] = await Promise.allSettled([ask("queue/shape?limit=100", true), ask("sites?limit=50", true)]);
    if (shape.status === "rejected") throw shape.reason;
    show_shape(shape.value);
    show_sites(sites.value || {});
  },
  failures: async () => show_failures(await ask("failures?limit=200", true)),
  changes: async () => show_changes(await ask("audit?limit=200", true)),
  search: async (rest, fresh) => {
    if (!fresh) return;
    $("filter").value = rest;
    await search(rest, false);
  },
  message: async (rest, fresh) => {
    if (fresh && /^[0-9A-Za-z]{13}$/.test(rest)) await show_message(rest.toUpperCase());
    else if (fresh) throw new Refused(400, "not a message id");
  },
};
function place() {
  const [, name, rest] = /^#(\w+)[?/]?(.*)$/.exec(location.hash) || ["", "overview", ""];
  try { return Object.hasOwn(views, name) ? [name, decodeURIComponent(rest)] : ["overview", ""]; } catch (e) { return [name, ""]; }
}
async function show_view(fresh) {
  const [name, rest] = place();
  if (state.view !== name + rest) {
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== "view-" + name;
    for (const link of document.querySelectorAll("nav a"))
      if (link.hash === "#" + name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    document.title = $("h-" + name).textContent + " · Posthouse";
    if (state.view) $("h-" + name).focus();
    state.view = name + rest;
    fresh = true;
  }
  if (!may_read()) {
    told("Sign in to see this node.");
    return;
  }
  try {
    if (!$("node").textContent) $("node").textContent = (await ask("status", true)).text || "";
    await views[name](rest, fresh);
    told("Up to date");
    if (fresh || !state.stays) problem("");
  } catch (e) {
    if (e.status === 401) {
      show_session({ signed_in: false, users: true });
      open_sign_in();
    } else {
      problem(sentence(e));
    }
    if (!(e instanceof Refused)) told("No connection");
  }
}
let moved = Promise.resolve();
function next_view(fresh) { moved = moved.then(() => show_view(fresh)); return moved; }
async function poll() {
  if (!document.hidden && !$("confirm").open && may_read()) await next_view(false);
  setTimeout(poll, POLL_MS);
}
async function start() {
  $("skip").addEventListener("click", event => { event.preventDefault(); $("main").focus(); });
  $("sign-in-form").addEventListener("submit", sign_in);
  $("sign-in-cancel").addEventListener("click", () => $("sign-in").close());
  $("confirm-form").addEventListener("submit", do_change);
  $("confirm-cancel").addEventListener("click", () => $("confirm").close());
  $("more").addEventListener("click", () => search(state.filter, true).catch(e => problem(sentence(e), true)));
  $("search-form").addEventListener("submit", event => {
    event.preventDefault();
    const text = $("filter").value.trim(), hash = /^[0-9A-Za-z]{13}$/.test(text) ? "#message/" + text : "#search?" + encodeURIComponent(text);
    if (location.hash === hash) next_view(true); else location.hash = hash;
  });
  $("show-header").addEventListener("click", async () => {
    try {
      $("header").textContent = (await ask("msg/" + state.id + "/headers")).text || "";
      $("header").hidden = false;
      $("header").focus();
      problem("");
    } catch (e) { problem(sentence(e), true); }
  });
  addEventListener("hashchange", () => next_view(true));
  try { show_session(await ask("session")); } catch (e) { problem(sentence(e)); }
  await next_view(true);
  if (!may_read() && state.session.users) open_sign_in();
  setTimeout(poll, POLL_MS);
}
start();
