// The page after hours of work, in little time: whatever happened, it holds no more than before,
// it still follows, and it comes back with its program. LOKI_PAGE_MESSAGES makes each round longer.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { post, until, World } from "./world.mjs";

const ROUNDS = 4;
/** Messages of a round; each makes several entries on both sides. */
const MESSAGES = Number(process.env.LOKI_PAGE_MESSAGES ?? 600);
/** One in so many is a task instead. */
const TASKS_EVERY = 40;
const AT_ONCE = 12;
/** What may come and go: a tooltip, a status that was not there before, a lane that fills. */
const NODES_MORE = 1.1;
/** A board that was not full at first, and one page of 50 rows that was replaced just now. A leak has more after some pages. */
const NODES_SPARE = 1_500;
const LISTENERS_SPARE = 150;
const HEAP_MORE = 1.2;
const HEAP_SPARE_BYTES = 1_500_000;
/** So long without a new entry on either side, and longer than a list waits to be read again. */
const CALM_MILLIS = 2_500;
const NOBODY = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/;

let world, server, bridge;

before(async () => {
    world = new World();
    server = await world.server();
    bridge = await world.bridge(server.address);
    const status = `${bridge.address}/api/openclaw/status`;
    await until("the session", async () => (await (await fetch(status)).json()).connected);
});

after(() => world.close());

let number = 0;

function one() {
    number += 1;
    if (number % TASKS_EVERY === 0) {
        const task = { task_type: "code_review", description: `Review part ${number}${number % 120 === 0 ? " and fail" : ""}` };
        return post(`${server.address}/tasks`, task);
    }
    const message = number % 7 === 0
        ? { message_type: "task_complete", payload: { task_id: `unknown-${number}`, status: "completed" } }
        : { message_type: "state_sync", payload: { number } };
    return post(`${bridge.address}/api/openclaw/send`, message);
}

async function round() {
    const end = number + MESSAGES;
    const work = async () => {
        while (number < end) await one();
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
}

/** The log that a page follows leaves out what is more than 40 entries a second, so nothing is looked for in a storm. */
async function calm() {
    const newest = async ({ address }) => (await (await fetch(`${address}/api/audit?limit=1`)).json()).entries[0].seq;
    const seen = async () => (await Promise.all([bridge, server].map(newest))).join();
    let [last, since] = [await seen(), Date.now()];
    while (Date.now() - since < CALM_MILLIS) {
        await pause(100);
        const now = await seen();
        if (now !== last) [last, since] = [now, Date.now()];
    }
}

/** What a window holds once everything that nobody needs is gone. */
async function held({ page, session }) {
    // A drawing that is due is made first.
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
    for (let time = 0; time < 3; time += 1) await session.send("HeapProfiler.collectGarbage");
    const { nodes, jsEventListeners } = await session.send("Memory.getDOMCounters");
    const { usedSize } = await session.send("Runtime.getHeapUsage");
    return { nodes, listeners: jsEventListeners, bytes: usedSize };
}

async function opened(address) {
    const window = await world.window(address);
    const session = await window.context.newCDPSession(window.page);
    await window.page.getByText("live", { exact: true }).waitFor();
    return { ...window, session };
}

/** As many entries as the view keeps, so that nothing grows only because it was not full. */
async function filled({ page }) {
    const lines = page.locator(".lines li");
    const older = page.getByRole("button", { name: "Older entries" });
    await lines.first().waitFor();
    await until("a full page", async () => {
        if (await older.count()) await older.click().catch(() => {});
        return (await lines.count()) >= 1_000;
    });
}

test("after many thousands of events the page is as small as before, and follows", async () => {
    await round();
    const names = ["overview", "audit", "messages", "letters", "tasks", "agents"];
    const windows = await Promise.all([
        ...names.map((name) => opened(`${bridge.address}/#/${name}`)),
        ...["overview", "tasks", "agents"].map((name) => opened(`${server.address}/#/${name}`)),
    ]);
    await filled(windows[1]);
    await round();
    await calm();
    const before = await Promise.all(windows.map(held));
    for (let time = 0; time < ROUNDS; time += 1) await round();
    await calm();
    const now = await Promise.all(windows.map(held));
    for (const [at, { page }] of windows.entries()) {
        const name = new URL(page.url()).hash + (at < names.length ? " of the bridge" : " of the server");
        const [one, other] = [before[at], now[at]];
        console.log(`${name}: ${JSON.stringify(one)} then ${JSON.stringify(other)}`);
        assert.ok(other.nodes <= one.nodes * NODES_MORE + NODES_SPARE, `nodes of ${name}: ${one.nodes}, then ${other.nodes}`);
        assert.ok(other.listeners <= one.listeners * NODES_MORE + LISTENERS_SPARE, `listeners of ${name}: ${one.listeners}, then ${other.listeners}`);
        assert.ok(other.bytes <= one.bytes * HEAP_MORE + HEAP_SPARE_BYTES, `heap of ${name}: ${one.bytes}, then ${other.bytes}`);
    }
    const { body } = await post(`${bridge.address}/api/openclaw/send`, { message_type: "state_sync", payload: {} });
    await windows[1].page.locator(`.lines [title="${body.message_id}"]`).first().waitFor();
    await windows[2].page.locator(`.id[title="${body.message_id}"]`).first().waitFor();
    await bridge.end();
    const lost = windows.slice(0, names.length);
    await Promise.all(lost.map(({ page }) => page.getByText("connecting again…").waitFor()));
    bridge = await world.bridge(server.address, bridge.port);
    await Promise.all(lost.map(({ page }) => page.getByText("live", { exact: true }).waitFor()));
    const { body: last } = await post(`${bridge.address}/api/openclaw/send`, { message_type: "state_sync", payload: {} });
    await windows[1].page.locator(`.lines [title="${last.message_id}"]`).first().waitFor();
    for (const { trouble } of windows) assert.deepEqual(trouble.filter((line) => !NOBODY.test(line)), []);
});
