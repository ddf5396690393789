// The API's page, made from /openapi.json.

import { request } from "./server.js";

const HERE = "http://localhost:8000"; // in the document's shell commands
const root = new URL(".", location.href).href.replace(/\/$/, "");
const find = (id) => document.getElementById(id);
let schemas = {};

function make(kind, properties, ...parts) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...parts.filter((part) => part !== null));
  return made;
}

/** What stands between backticks is code. */
function prose(text) {
  return text.trim().split("`").map((part, n) => (n % 2 ? make("code", {}, part) : part));
}

const paragraph = (text) => (text ? make("p", {}, ...prose(text)) : null);

/** A schema as one reads it: `{label: text, probability: 0 to 1}`. */
function outline(schema, indent = "") {
  if (schema.$ref) return outline(schemas[schema.$ref.split("/").at(-1)], indent);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map((one) => outline(one, indent)).join(choices.length > 2 ? `\n${indent}or ` : " or ");
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return list(schema, indent);
  if (schema.type === "object" && schema.properties) return fields(schema, indent);
  if (schema.type === "object" && schema.additionalProperties) {
    return `{ name: ${outline(schema.additionalProperties, indent)} … }`;
  }
  if (schema.format === "binary") return "bytes";
  if (schema.minimum !== undefined && schema.maximum !== undefined) {
    return `${schema.type === "integer" ? "whole " : ""}${schema.minimum} to ${schema.maximum}`;
  }
  const plain = { string: "text", integer: "whole number", boolean: "true or false" };
  return plain[schema.type] ?? schema.type ?? "anything";
}

function list(schema, indent) {
  const sizes = [];
  for (; schema.type === "array"; schema = schema.items) sizes.push(`[${schema.maxItems ?? "N"}]`);
  const inner = outline(schema, indent);
  return `${inner.includes(" or ") ? `(${inner})` : inner} ${sizes.join("")}`;
}

function fields(schema, indent) {
  const deeper = `${indent}  `;
  const lines = Object.entries(schema.properties).map(([name, value]) => {
    const optional = schema.required?.includes(name) ? "" : "?";
    const about = (value.description ?? value.anyOf?.[0].description) || "";
    return `${deeper}${name}${optional}: ${outline(value, deeper)}${about && `  — ${about.replaceAll("`", "")}`}`;
  });
  return `{\n${lines.join("\n")}\n${indent}}`;
}

function copied(source) {
  const text = source.replaceAll(HERE, root).replaceAll(new URL(HERE).host, location.host);
  const button = make("button", { type: "button", textContent: "Copy" });
  button.addEventListener("click", async () => {
    const done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    button.textContent = done ? "Copied" : "Select it and copy";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return [make("pre", { tabIndex: 0 }, text), button];
}

function section(title, ...parts) {
  return parts.some(Boolean) ? make("div", { className: "part" }, make("h4", {}, title), ...parts) : null;
}

function parameters(given = []) {
  if (!given.length) return null;
  const rows = given.flatMap((one) => [
    make("dt", {}, make("code", {}, one.name), one.in === "path" ? "" : ` in the ${one.in}`),
    make("dd", {}, ...prose(one.description ?? ""), make("span", { className: "type" }, shortly(one.schema))),
  ]);
  return make("dl", {}, ...rows);
}

function shortly(schema) {
  const standard = schema.default === undefined ? "" : `, ${schema.default} by default`;
  return ` ${outline(schema)}${standard}`;
}

/** Types with the same schema share an entry. */
function bodies(content = {}) {
  const kinds = {};
  for (const [kind, media] of Object.entries(content)) (kinds[JSON.stringify(media)] ??= [media]).push(kind);
  return Object.values(kinds).map(([{ schema }, ...names]) => {
    const meant = schema?.$ref ? schemas[schema.$ref.split("/").at(-1)] : schema;
    const isStructured = meant?.properties || meant?.oneOf || meant?.anyOf;
    return make("div", { className: "kind" },
      make("code", {}, names.join(", ")),
      paragraph(meant?.description),
      isStructured ? make("pre", { tabIndex: 0 }, outline(schema)) : null);
  });
}

function answer([code, { description, content }]) {
  const [kind, media] = Object.entries(content ?? {})[0] ?? [];
  const shape = code < 300 && media?.schema ? outline(media.schema) : "";
  const text = make("span", {}, ...prose(description), kind ? make("code", { className: "type" }, ` ${kind}`) : "");
  return make("div", { className: "code" },
    make("b", { className: code < 400 ? "right" : "wrong" }, code),
    make("div", {}, text, shape.includes("\n") ? make("pre", { tabIndex: 0 }, shape) : null));
}

function refusals(responses) {
  if (!responses.length) return null;
  const codes = responses.map(([code]) => code).join(", ");
  return make("details", {}, make("summary", {}, `What it refuses: ${codes}`), ...responses.map(answer));
}

function operation(path, method, about) {
  const samples = (about["x-codeSamples"] ?? []).map((sample) =>
    make("figure", {}, make("figcaption", {}, sample.label), ...copied(sample.source)),
  );
  const answers = Object.entries(about.responses);
  const text = make("div", { className: "text" },
    paragraph(about.description),
    section("Parameters", parameters(about.parameters)),
    section("Body", ...bodies(about.requestBody?.content)),
    section("Answers", ...answers.filter(([code]) => code < 400).map(answer)),
    refusals(answers.filter(([code]) => code >= 400)),
  );
  const title = make("h3", {}, make("b", { className: method }, method.toUpperCase()), make("code", {}, path));
  return make("section", { id: `op-${about.operationId}` },
    title, make("p", { className: "summary" }, about.summary), text, make("div", { className: "samples" }, ...samples));
}

function show(document_) {
  schemas = document_.components.schemas;
  find("title").textContent = document_.info.title;
  document.title = document_.info.title;
  const all = Object.entries(document_.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => ({ path, method, about })),
  );
  find("content").append(make("div", { className: "intro" }, paragraph(document_.info.description)));
  for (const { name, description } of document_.tags) {
    const mine = all.filter(({ about }) => about.tags.includes(name));
    find("content").append(make("h2", {}, name), make("p", { className: "about" }, ...prose(description)),
      ...mine.map(({ path, method, about }) => operation(path, method, about)));
    const links = mine.map(({ path, about }) => make("li", {}, make("a", { href: `#op-${about.operationId}` }, path)));
    find("contents").append(make("p", {}, name), make("ul", {}, ...links));
  }
  if (location.hash) find(location.hash.slice(1))?.scrollIntoView();
}

try {
  show(await (await request("openapi.json")).json());
} catch {
  find("content").append(make("p", {}, "The service does not answer. Load this page again once it does."));
}
