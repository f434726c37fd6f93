// The programs and the browser of a test: real ones, on free ports, gone at the end.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, closeSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const bin = process.env.LOKI_TEST_BIN ?? join(root, "target/debug");
const browserPath = process.env.LOKI_TEST_CHROMIUM ?? "/usr/bin/chromium";
/** Far above what anything takes on a busy machine. */
export const PATIENCE_MILLIS = 30_000;

/** An agent that says how far it is, and fails when its task says so. */
const AGENT = `import json, sys, time
task = json.load(sys.stdin)
for step in (0.25, 0.5, 0.75):
    print(json.dumps({"progress": step, "message": "working"}), flush=True)
    time.sleep(0.05)
if "fail" in task.get("description", ""):
    sys.exit("the tests failed")
print(json.dumps({"result": {"findings": 2}}))
`;
const CONFIG = `agents:
  - type: review-code
    command: [python3, agent.py]
    task_types: [code_review]
`;

export async function until(what, look) {
    const end = Date.now() + PATIENCE_MILLIS;
    for (;;) {
        const found = await look();
        if (found) return found;
        if (Date.now() > end) throw new Error(`waited for ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 30));
    }
}

class Program {
    constructor(child, log, address, data) {
        Object.assign(this, { child, log, address, data, port: new URL(address).port });
    }

    async end(signal = "SIGKILL") {
        const ended = new Promise((resolve) => this.child.once("exit", resolve));
        if (this.child.exitCode === null && this.child.kill(signal)) await ended;
    }
}

export class World {
    #folder = mkdtempSync(join(tmpdir(), "dashboard-"));
    #programs = [];
    #browser;

    async #start(command, args, options, data) {
        const endpoint = join(data, "endpoint");
        rmSync(endpoint, { force: true });
        const child = spawn(join(bin, command), args, { ...options, stdio: ["ignore", "ignore", "pipe"] });
        const log = [];
        child.stderr.on("data", (bytes) => log.push(String(bytes)));
        const address = await until(`the address of ${command}`, () => {
            if (child.exitCode !== null) throw new Error(`${command} ended: ${log.join("")}`);
            return existsSync(endpoint) && readFileSync(endpoint, "utf8").trim();
        });
        const program = new Program(child, log, address, data);
        this.#programs.push(program);
        return program;
    }

    async server(port = 0, name = "server") {
        const data = join(this.#folder, name);
        mkdirSync(data, { recursive: true });
        const env = { ...process.env, OPENCLAW_LISTEN: `127.0.0.1:${port}`, OPENCLAW_HEARTBEAT: "1" };
        return this.#start("openclaw-server", ["--data-dir", data], { env }, data);
    }

    async bridge(endpoint, port = 0, more = {}, name = "project") {
        const project = join(this.#folder, name);
        const data = join(project, ".loki/openclaw");
        mkdirSync(data, { recursive: true });
        writeFileSync(join(project, ".loki/config.yaml"), CONFIG);
        writeFileSync(join(project, "agent.py"), AGENT);
        const env = {
            ...process.env, LOKI_OPENCLAW_ENABLED: "true", LOKI_OPENCLAW_ENDPOINT: endpoint,
            LOKI_OPENCLAW_AGENT_ID: "planner", LOKI_OPENCLAW_HEARTBEAT: "1", LOKI_DASHBOARD_PORT: String(port), ...more,
        };
        return this.#start("loki", ["start", "--openclaw"], { cwd: project, env }, data);
    }

    /** A window of a real browser. What it complains of, and whom it asks, is kept. */
    async window(address, options = {}) {
        this.#browser ??= chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
        const context = await (await this.#browser).newContext({ viewport: { width: 1280, height: 900 }, ...options });
        const page = await context.newPage();
        page.setDefaultTimeout(PATIENCE_MILLIS);
        const trouble = [];
        const hosts = new Set();
        page.on("console", (line) => ["error", "warning"].includes(line.type()) && trouble.push(line.text()));
        page.on("pageerror", (error) => trouble.push(error.message));
        page.on("request", (request) => hosts.add(new URL(request.url()).origin));
        await page.goto(address);
        return { page, trouble, hosts, context };
    }

    async close() {
        await (await this.#browser)?.close();
        await Promise.all(this.#programs.map((program) => program.end()));
        rmSync(this.#folder, { recursive: true, force: true });
    }
}

export async function post(address, body) {
    const response = await fetch(address, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
}

/** Makes a byte of this text in the program's journal another one, as a disk does it. */
export function rot(program, text) {
    const journal = join(program.data, "journal");
    for (const name of readdirSync(journal).filter((it) => it.endsWith(".log"))) {
        const path = join(journal, name);
        const at = readFileSync(path).indexOf(text);
        if (at < 0) continue;
        const file = openSync(path, "r+");
        writeSync(file, Buffer.from([text.charCodeAt(0) ^ 1]), 0, 1, at);
        closeSync(file);
        return name;
    }
    throw new Error(`${text} is nowhere`);
}

/** A message that the server refuses for good: it becomes a dead letter. */
export async function deadLetter(bridge, name) {
    const { body } = await post(`${bridge.address}/api/openclaw/send`, {
        message_type: "task_complete", payload: { task_id: name, status: "completed" },
    });
    await until("a dead letter", async () => {
        const answer = await fetch(`${bridge.address}/api/openclaw/messages/${body.message_id}`);
        return answer.ok && (await answer.json()).status === "failed";
    });
    return body.message_id;
}
