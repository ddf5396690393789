// Speaks with the service. What goes wrong is one of three errors, and the page says each in its own way.

let key = sessionStorage.getItem("key") ?? "";

/** Nobody answers. */
export class Lost extends Error {}
/** A key is asked for, or the one given is wrong. */
export class Locked extends Error {}
/** The service says no, and why. */
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function hasKey() {
  return key !== "";
}

/** For this tab alone; a header takes plain letters only. */
export function useKey(given) {
  key = given.replace(/[^\x21-\x7e]/g, "");
  sessionStorage.setItem("key", key);
}

export async function request(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const reply = await patiently(path, { ...options, headers, cache: "no-store" });
  if (reply.status === 401) throw new Locked();
  if (!reply.ok) throw new Refusal(reply.status, await detail(reply));
  return reply;
}

/** Where a network comes or goes, a container's or a VPN's, a browser drops what it is just connecting. */
async function patiently(path, options) {
  for (let left = 3; ; left--) {
    try {
      return await fetch(path, { ...options, signal: AbortSignal.timeout(15_000) });
    } catch (error) {
      if (!left || error.name === "TimeoutError") throw new Lost();
      await new Promise((go) => setTimeout(go, 300));
    }
  }
}

async function detail(reply) {
  try {
    return (await reply.json()).detail ?? `the service answered ${reply.status}`;
  } catch {
    return `the service answered ${reply.status}`;
  }
}

export async function getStatus() {
  return json(await request("status"));
}

/** A picture -> {label, probability, probabilities, image, version}. */
export async function predict(body, type) {
  const answer = await json(
    await request("predict?image=1", { method: "POST", body, headers: { "Content-Type": type } }),
  );
  return { ...answer.predictions[0], version: answer.model.version };
}

async function json(reply) {
  try {
    return await reply.json();
  } catch {
    throw new Lost(); // cut off in the middle
  }
}
