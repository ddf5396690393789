// The model that answers: its scores, where it comes from, and what it takes for what.

import { percent } from "./answer.js";

const find = (id) => document.getElementById(id);
const SCORES = { accuracy: "accuracy", precision: "precision", recall: "recall", f1: "F1", loss: "loss" };
let shown = "";

export function showModel(status) {
  const { model } = status;
  find("present").hidden = !model;
  find("absent").hidden = Boolean(model);
  if (!model) return showAbsence(status);
  const known = JSON.stringify([model, status.links]);
  if (known === shown) return;
  shown = known;
  showScores(model.scores);
  showFacts(status);
  showMatrix(model.class_names, model.confusion);
}

function showAbsence({ absence, looked }) {
  shown = "";
  find("absence").textContent = looked ? absence : "It is being loaded.";
  find("remedy").hidden = !looked || !absence?.includes("fmnist train");
}

function showScores(scores) {
  const accuracy = scores.test_accuracy;
  find("accuracy").textContent = accuracy === undefined ? "" : percent(accuracy, 2);
  find("accuracy").parentElement.hidden = accuracy === undefined;
  const table = find("scores");
  const lines = Object.entries(SCORES).filter(([name]) => `test_${name}` in scores || `val_${name}` in scores);
  const body = lines.map(([name, title]) => [title, ...["test", "val"].map((split) => score(scores, split, name))]);
  table.hidden = !lines.length;
  table.replaceChildren(table.caption ?? "", ...[["", "test", "validation"], ...body].map(makeLine));
}

function score(scores, split, name) {
  const value = scores[`${split}_${name}`];
  if (value === undefined) return "";
  return name === "loss" ? value.toFixed(4) : percent(value, 2);
}

function makeLine(texts, line) {
  const row = document.createElement("tr");
  row.append(...texts.map((text, n) => cell(line && n ? "td" : "th", text, line ? "row" : "col")));
  return row;
}

function cell(kind, text, scope) {
  const made = document.createElement(kind);
  for (const part of String(text).split(/(?<=\/)/)) made.append(part, document.createElement("wbr")); // T-shirt/top
  if (kind === "th") made.scope = scope;
  return made;
}

function showFacts({ name, model, links }) {
  const mlflow = model.mlflow_run && links.MLflow;
  const version = mlflow && `${links.MLflow}/#/models/${encodeURIComponent(name)}/versions/${model.version}`;
  const facts = [
    ["version", model.version, version],
    ["run", model.run_id],
    ["registered", model.created ? when(model.created) : ""],
    ["SHA-256", model.sha256.slice(0, 12)],
  ];
  find("facts").replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([term, value, address]) => {
      const [title, text] = ["dt", "dd"].map((kind) => document.createElement(kind));
      title.textContent = term;
      text.append(address ? link(value, address) : value);
      return [title, text];
    }),
  );
}

const when = (seconds) => new Date(1000 * seconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export function link(text, address) {
  const made = document.createElement("a");
  const here = address.replace("//localhost:", `//${location.hostname}:`); // the service does not know its own name
  Object.assign(made, { textContent: text, href: here, target: "_blank", rel: "noopener" });
  return made;
}

/** [C][C]: rows are the true classes, columns the predicted ones. */
function showMatrix(names, counts) {
  const table = find("matrix");
  table.hidden = find("cell").hidden = !counts;
  if (!counts) return;
  const caption = document.createElement("caption");
  caption.textContent = "What it takes for what: a row for each true class, a column for each answer";
  const head = document.createElement("tr");
  head.append(cell("td", ""), ...names.map((name) => cell("th", name, "col")));
  const rows = counts.map((line, truth) => {
    const row = document.createElement("tr");
    row.append(cell("th", names[truth], "row"), ...line.map((count, answer) => share(count, line, truth === answer)));
    return row;
  });
  table.replaceChildren(caption, head, ...rows);
  lookAround(table, names, counts);
}

function share(count, line, right) {
  const made = cell("td", count || "");
  const part = count / Math.max(1, line.reduce((sum, one) => sum + one, 0));
  made.className = right ? "right" : "wrong";
  made.style.setProperty("--share", right ? part : Math.min(1, Math.sqrt(4 * part)));
  if (!count) made.setAttribute("aria-label", "0");
  return made;
}

/** What the pointer or the arrow keys are on is said below the table. */
function lookAround(table, names, counts) {
  const size = names.length;
  let at = [0, 0];
  const say = (truth, answer) => {
    const [line, count] = [counts[truth], counts[truth][answer]];
    const all = line.reduce((sum, one) => sum + one, 0);
    const what = truth === answer ? `${names[truth]} recognized` : `${names[truth]} taken for ${names[answer]}`;
    find("cell").textContent = `${what}: ${count} of ${all.toLocaleString("en")}, ${percent(count / Math.max(1, all))}`;
    for (const marked of table.querySelectorAll(".at")) marked.classList.remove("at");
    const row = table.rows[truth + 1];
    for (const one of [row.cells[answer + 1], row.cells[0], table.rows[0].cells[answer + 1]]) one.classList.add("at");
    at = [truth, answer];
  };
  table.onpointerover = ({ target }) => {
    const [truth, answer] = [target.parentElement.rowIndex - 1, target.cellIndex - 1];
    if (truth >= 0 && answer >= 0) say(truth, answer);
  };
  table.onfocus = () => say(...at);
  table.onkeydown = (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    say(...at.map((value, axis) => Math.min(Math.max(value + move[axis], 0), size - 1)));
  };
}
