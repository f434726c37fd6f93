// The page in a real browser, on the real programs: what an operator does with it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { deadLetter, post, rot, until, World } from "./world.mjs";

let world, server, bridge;

before(async () => {
    world = new World();
    server = await world.server();
    bridge = await world.bridge(server.address);
    await until("the session", async () => (await (await fetch(`${bridge.address}/api/openclaw/status`)).json()).connected);
});

after(() => world.close());

function send(number) {
    return post(`${bridge.address}/api/openclaw/send`, { message_type: "state_sync", payload: { number } });
}

/** Nothing was complained of, and nobody else was asked. */
function quiet({ trouble, hosts }, address, expected = () => false) {
    assert.deepEqual(trouble.filter((line) => !expected(line)), []);
    assert.deepEqual([...hosts], [new URL(address).origin]);
}

test("the overview follows what happens", async () => {
    const window = await world.window(bridge.address);
    const { page } = window;
    await page.getByText("live", { exact: true }).waitFor();
    await page.locator(".tile.link strong", { hasText: "connected" }).waitFor();
    const delivered = page.locator(".figures li", { hasText: "delivered" }).locator("b").first();
    const known = async () => Number((await delivered.getAttribute("title"))?.replaceAll(",", "") ?? 0);
    await send(0);
    await until("a delivered message", known);
    const first = await known();
    for (let number = 0; number < 5; number += 1) await send(number);
    await until("five more", async () => (await known()) >= first + 5);
    await page.locator(".lines [data-seq]").first().waitFor();
    assert.equal(await page.locator(".chart canvas").count(), 4);
    quiet(window, bridge.address);
});

test("the audit log is live, is filtered, and is paused", async () => {
    const window = await world.window(`${bridge.address}/#/audit`);
    const { page } = window;
    const lines = page.locator(".lines li");
    const [{ body: one }] = await Promise.all([send(1), lines.first().waitFor()]);
    await page.locator(`.lines [title="${one.message_id}"]`).first().waitFor();
    await page.getByLabel("About").fill(one.message_id);
    await until("only that message", async () => {
        const about = await page.locator(".lines .id").evaluateAll((all) => all.map((it) => it.title));
        return about.length >= 3 && about.every((id) => id === one.message_id);
    });
    await page.getByLabel("About").fill("");
    await page.getByLabel("Event").selectOption("message.failed");
    await page.getByText("Nothing of this kind is recorded.").waitFor();
    const failed = await deadLetter(bridge, "unknown-audit");
    await page.locator(`.lines [title="${failed}"]`).first().waitFor();
    const shown = await lines.count();
    const events = new Set(await page.locator(".lines .event").allTextContents());
    assert.deepEqual([...events], ["message.failed"], "the filter holds for what comes live");
    await page.getByRole("button", { name: "Pause" }).click();
    const held = await deadLetter(bridge, "unknown-held");
    await page.getByRole("button", { name: "Go on (1)" }).waitFor();
    assert.equal(await lines.count(), shown);
    await page.getByRole("button", { name: "Go on (1)" }).click();
    await page.locator(`.lines [title="${held}"]`).first().waitFor();
    assert.equal(await lines.count(), shown + 1);
    quiet(window, bridge.address);
});

test("the list of messages is filtered, read page by page, and a message shows its life", async () => {
    for (let number = 0; number < 60; number += 1) await send(number);
    const window = await world.window(`${bridge.address}/#/messages`);
    const { page } = window;
    const rows = page.locator("tbody tr");
    await until("a page", async () => (await rows.count()) >= 50);
    await page.getByRole("button", { name: "Older messages" }).click();
    await until("more", async () => (await rows.count()) > 60);
    await page.getByLabel("Type").selectOption("state_sync");
    await until("only these", async () => {
        const types = await page.locator("tbody td:nth-child(2)").allTextContents();
        return types.length > 0 && types.every((type) => type === "state_sync");
    });
    assert.match(page.url(), /type=state_sync/, "the filter has a link");
    await rows.first().click();
    await page.getByRole("heading", { name: "Life" }).waitFor();
    await page.locator(".life li", { hasText: "attempt 1" }).waitFor();
    await page.locator(".life li", { hasText: "delivered" }).waitFor();
    await page.locator("pre", { hasText: '"number"' }).waitFor();
    quiet(window, bridge.address);
});

test("a dead letter is sent again", async () => {
    const id = await deadLetter(bridge, "unknown-letter");
    const window = await world.window(`${bridge.address}/#/letters`);
    const { page } = window;
    const row = page.locator(`tr:has([title="${id}"])`);
    await row.getByRole("button", { name: "Send again" }).click();
    // The server refuses it again: what counts is that it was tried again.
    await until("the second attempt", async () => {
        const message = await (await fetch(`${bridge.address}/api/openclaw/messages/${id}`)).json();
        return message.history.filter((step) => step.status === "sending").length >= 2;
    });
    await row.click();
    await page.locator(".life li", { hasText: "given up" }).nth(1).waitFor();
    quiet(window, bridge.address);
});

test("dead letters are told by cause and pruned", async () => {
    const id = await deadLetter(bridge, "unknown-cause");
    const window = await world.window(`${bridge.address}/#/letters`);
    const { page } = window;
    const cause = page.locator(".causes li", { hasText: "unknown_task" }).first();
    await cause.getByRole("button").click();
    assert.match(page.url(), /reason=permanent/, "a cause narrows the list");
    await page.locator(`tr:has([title="${id}"])`).click();
    await page.getByRole("button", { name: "Prune", exact: true }).click();
    await page.getByRole("button", { name: "Yes" }).click();
    await page.locator(".life li", { hasText: "pruned" }).waitFor();
    const message = await (await fetch(`${bridge.address}/api/openclaw/messages/${id}`)).json();
    assert.notEqual(message.status, "failed");
    quiet(window, bridge.address);
});

/** A message in the mailbox of an agent that refuses it for good. */
async function refused(id) {
    const say = (message) => post(`${server.address}/messages`, message);
    await say({ message_type: "register", agent_id: "reader" });
    await say({ message_type: "review_note", agent_id: "writer", to: "reader", message_id: id, payload: { text: id } });
    const error = { code: "invalid_field", message: "the note is odd", retryable: false };
    await say({ message_type: "nack", agent_id: "reader", payload: { message_id: id, error } });
}

test("a server shows its messages, and its dead letters are decided about", async () => {
    await refused("odd-1");
    await refused("odd-2");
    const window = await world.window(`${server.address}/#/overview`);
    const { page } = window;
    await page.getByRole("link", { name: "default/reader" }).click();
    assert.match(page.url(), /namespace=default/);
    await page.locator('tbody [title="odd-1"]').first().waitFor();
    assert.equal(await page.locator("tbody tr").count(), 2, "only what is for that agent");
    await page.getByLabel("Namespace").fill("elsewhere");
    await page.getByText("No message is like this.").waitFor();

    await page.goto(`${server.address}/#/letters`);
    await page.locator(".causes li", { hasText: "the note is odd" }).waitFor();
    const row = page.locator('tr:has([title="odd-1"])');
    await row.getByRole("button", { name: "Send again" }).click();
    await row.waitFor({ state: "detached" });
    await page.goto(`${server.address}/#/messages/odd-1`);
    await page.locator(".said", { hasText: "it lies in the mailbox of reader" }).waitFor();
    await page.locator(".life li", { hasText: "given up" }).waitFor();
    await page.locator("pre", { hasText: "odd-1" }).waitFor();
    const mail = await (await fetch(`${server.address}/messages?agent_id=reader`)).json();
    assert.deepEqual(mail.messages.map((it) => it.message_id), ["odd-1"]);

    await page.goto(`${server.address}/#/messages/odd-2`);
    await page.getByRole("button", { name: "Prune", exact: true }).click();
    await page.getByRole("button", { name: "Yes" }).click();
    await page.locator(".life li", { hasText: "pruned" }).waitFor();
    quiet(window, server.address);
});

test("an agent's mailbox is held and goes on", async () => {
    await post(`${server.address}/messages`, { message_type: "register", agent_id: "held" });
    const window = await world.window(`${server.address}/#/agents`);
    const { page } = window;
    const agent = page.locator("article", { has: page.locator('[title="held"]') });
    const held = async () => (await (await fetch(`${server.address}/agents/held`)).json()).paused;
    await agent.getByRole("button", { name: "Pause deliveries" }).click();
    await agent.getByRole("button", { name: "Yes" }).click();
    await agent.getByText("held by operator").waitFor();
    assert.equal((await held()).by, "operator");
    await agent.getByRole("button", { name: "Resume deliveries" }).click();
    await agent.getByRole("button", { name: "Pause deliveries" }).waitFor();
    assert.equal(await held(), null);
    quiet(window, server.address);
});

test("a message that was refused has a page of what was recorded of it", async () => {
    const note = { message_type: "review_note", agent_id: "writer", to: "nobody", message_id: "refused-1", payload: {} };
    assert.equal((await post(`${server.address}/messages`, note)).status, 404);
    const window = await world.window(`${server.address}/#/messages/refused-1`);
    await window.page.locator(".life li", { hasText: "rejected" }).waitFor();
    quiet(window, server.address, (line) => /404/.test(line));
});

test("deliveries are paused and go on", async () => {
    const window = await world.window(bridge.address);
    const { page } = window;
    await page.getByRole("button", { name: "Pause deliveries" }).click();
    await page.getByRole("button", { name: "Yes" }).click();
    await page.locator(".tile.link strong", { hasText: "paused" }).waitFor();
    const { body } = await send(9);
    await page.goto(`${bridge.address}/#/messages/${body.message_id}`);
    await page.locator(".said", { hasText: "paused" }).waitFor();
    const status = async () => (await (await fetch(`${bridge.address}/api/openclaw/messages/${body.message_id}`)).json()).status;
    assert.equal(await status(), "pending");
    await page.keyboard.press("1");
    await page.getByRole("button", { name: "Resume deliveries" }).click();
    await until("the delivery", async () => (await status()) === "delivered");
    await page.locator(".tile.link strong", { hasText: "connected" }).waitFor();
    quiet(window, bridge.address);
});

test("everything is reached by keyboard", async () => {
    await send(7);
    const window = await world.window(bridge.address);
    const { page } = window;
    await page.getByText("live", { exact: true }).waitFor();
    await page.keyboard.press("2");
    await page.locator("tbody tr").first().waitFor();
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    await page.keyboard.press("k");
    const focused = await page.evaluate(() => document.activeElement?.getAttribute("data-row"));
    assert.ok(focused, "a row has the focus");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Life" }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator("tbody tr").first().waitFor();
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement?.tagName), "INPUT");
    await page.keyboard.press("Escape");
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.keyboard.press("t");
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    // Behind the last thing of the page comes the first.
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    assert.notEqual(await page.evaluate(() => document.activeElement?.tagName), "BODY");
    quiet(window, bridge.address);
});

test("tasks move and agents show their load", async () => {
    const window = await world.window(`${server.address}/#/tasks`);
    const { page } = window;
    await page.getByText("live", { exact: true }).waitFor();
    const submitted = await post(`${server.address}/tasks`, { task_type: "code_review", description: "Review the loans module" });
    assert.equal(submitted.status, 201);
    await page.locator("section[aria-label=completed] .card", { hasText: "Review the loans module" }).click();
    await page.locator(".life li", { hasText: "completed" }).waitFor();
    await page.locator("pre", { hasText: '"findings": 2' }).waitFor();
    await post(`${server.address}/tasks`, { task_type: "code_review", description: "This will fail" });
    await page.goto(`${server.address}/#/tasks`);
    await page.locator("section[aria-label=failed] .card", { hasText: "This will fail" }).waitFor();
    await page.locator("section[aria-label=completed] .card", { hasText: "Review the loans module" }).waitFor();
    assert.equal(await page.locator("section[aria-label=completed] .card", { hasText: "This will fail" }).count(), 0);
    await page.goto(`${server.address}/#/agents`);
    await page.locator("article.online", { hasText: "planner" }).getByText("of 1").waitFor();
    await page.getByLabel("Name or type").fill("nobody");
    await page.getByText("No agent is like this.").waitFor();
    await page.getByLabel("Name or type").fill("review-c");
    await page.locator("article.online", { hasText: "planner" }).waitFor();
    quiet(window, server.address);
});

test("a bridge shows its tasks, and what its agents did", async () => {
    const task = { task_id: "own", task_type: "code_review", description: "Review the shelf" };
    assert.equal((await post(`${server.address}/tasks`, task)).status, 201);
    const window = await world.window(`${bridge.address}/#/tasks`);
    const { page } = window;
    await page.locator("section[aria-label=completed] .card", { hasText: "Review the shelf" }).click();
    await page.locator("pre", { hasText: '"findings": 2' }).waitFor();
    await page.keyboard.press("5");
    await page.locator("article", { hasText: "review-code" }).getByText(/[1-9][0-9]* *running, [1-9]|0 running, [1-9]/).waitFor();
    quiet(window, bridge.address);
});

test("a task of another namespace is listed and shown", async () => {
    const task = { task_id: "far", task_type: "code_review", description: "Far away" };
    assert.equal((await post(`${server.address}/tasks?namespace=elsewhere`, task)).status, 201);
    const window = await world.window(`${server.address}/#/tasks`);
    const { page } = window;
    await page.locator("section[aria-label=pending] .card", { hasText: "Far away" }).click();
    await page.locator(".facts", { hasText: "elsewhere" }).waitFor();
    await page.locator(".life li", { hasText: "pending" }).waitFor();
    await post(`${server.address}/tasks/far/cancel?namespace=elsewhere`, {});
    await page.goto(`${server.address}/#/tasks`);
    await page.locator("section[aria-label=cancelled] .card", { hasText: "Far away" }).click();
    await page.locator(".facts", { hasText: "elsewhere" }).waitFor();
    quiet(window, server.address);
});

test("tasks that never stop moving are followed", async () => {
    const window = await world.window(`${server.address}/#/tasks`);
    const { page } = window;
    await page.getByText("live", { exact: true }).waitFor();
    let number = 0;
    const submit = () => post(`${server.address}/tasks`, { task_type: "code_review", description: `Endless ${(number += 1)}` });
    const endless = setInterval(submit, 150);
    try {
        await page.locator("section[aria-label=completed] .card", { hasText: "Endless 2" }).first().waitFor();
    } finally {
        clearInterval(endless);
    }
    quiet(window, server.address);
});

test("the page fits a phone and the dark", async () => {
    const id = await deadLetter(bridge, "unknown-phone");
    await refused("odd-phone");
    const options = { viewport: { width: 360, height: 844 }, colorScheme: "dark" };
    const views = ["", "#/messages", `#/messages/${id}`, "#/letters", "#/tasks", "#/agents", "#/audit"];
    for (const address of [...views.map((view) => `${bridge.address}/${view}`), ...["messages", "letters", "tasks", "agents"].map((view) => `${server.address}/#/${view}`)]) {
        const window = await world.window(address, options);
        await window.page.getByText("live", { exact: true }).waitFor();
        await window.page.locator(".panel").last().waitFor();
        if (address.endsWith("letters")) await window.page.locator(".causes li").first().waitFor();
        const wide = await window.page.evaluate(() => document.documentElement.scrollWidth);
        const tables = await window.page.locator(".scroll").evaluateAll((all) => all.map((it) => it.scrollWidth - it.clientWidth));
        assert.ok(tables.every((over) => over <= 0), `a table of ${address} is ${tables} too wide`);
        assert.ok(wide <= 360, `${address} is ${wide} wide`);
        const ground = await window.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        assert.equal(ground, "rgb(17, 19, 21)");
        quiet(window, address);
        await window.context.close();
    }
});

test("an audit log that could not be read at first is read again", async () => {
    const window = await world.window(`${bridge.address}/#/messages`);
    const { page } = window;
    await page.getByText("live", { exact: true }).waitFor();
    await page.route("**/api/audit?*", (route) => route.abort(), { times: 1 });
    await page.goto(`${bridge.address}/#/audit`);
    const { body } = await send(5);
    await page.locator(`.lines [title="${body.message_id}"]`).first().waitFor();
    quiet(window, bridge.address, (line) => line.includes("ERR_FAILED"));
});

test("what cannot be read is said on every view, with what was recorded of it", async () => {
    const other = await world.bridge(server.address, 0, { LOKI_OPENCLAW_AGENT_ID: "rotten" }, "rotten");
    const payload = { text: "a text that rots" };
    const { body } = await post(`${other.address}/api/openclaw/send`, { message_type: "review_note", to: "planner", payload });
    const window = await world.window(`${other.address}/#/messages`);
    const { page } = window;
    await page.locator("tbody tr").first().waitFor();
    assert.equal(await page.locator(".damage").count(), 0);
    const segment = rot(other, payload.text);
    await page.goto(`${other.address}/#/messages/${body.message_id}`);
    await page.locator("pre", { hasText: "null" }).waitFor();
    const bar = page.locator(".damage", { hasText: segment });
    for (const view of ["messages", "tasks", "overview"]) {
        await page.goto(`${other.address}/#/${view}`);
        await bar.waitFor();
    }
    await bar.getByRole("link").click();
    await page.locator(`.lines [title="${segment}"]`).first().waitFor();
    assert.deepEqual(await page.locator(".lines .event").allTextContents(), ["store.damage"]);
    quiet(window, other.address);
    await other.end();
});

test("the page comes back with its program and misses nothing", async () => {
    const other = await world.bridge(server.address, 0, { LOKI_OPENCLAW_AGENT_ID: "other" }, "restarted");
    const window = await world.window(`${other.address}/#/audit`);
    const { page } = window;
    await page.getByText("live", { exact: true }).waitFor();
    await other.end();
    await page.getByText("connecting again…").waitFor();
    const again = await world.bridge(server.address, other.port, { LOKI_OPENCLAW_AGENT_ID: "other" }, "restarted");
    const { body } = await post(`${again.address}/api/openclaw/send`, { message_type: "state_sync", payload: {} });
    await page.getByText("live", { exact: true }).waitFor();
    await page.locator(`.lines [title="${body.message_id}"]`).first().waitFor();
    // While nobody was there the browser could not connect, which it tells.
    quiet(window, other.address, (line) => /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/.test(line));
});

test("with a token the page asks for it, and another page changes nothing", async () => {
    const token = "a-token-of-32-letters-for-the-test";
    const guarded = await world.bridge(server.address, 0, { LOKI_OPENCLAW_AGENT_ID: "guarded", LOKI_DASHBOARD_TOKEN: token }, "guarded");
    assert.equal((await fetch(`${guarded.address}/api/overview`)).status, 401);
    assert.equal((await fetch(`${guarded.address}/dashboard/page.js`)).status, 401);
    const window = await world.window(guarded.address);
    const { page } = window;
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("live", { exact: true }).waitFor();
    quiet(window, guarded.address, (line) => /401/.test(line));
    const [cookie] = await window.context.cookies();
    assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && !cookie.value.includes(token));
    for (const [headers, status] of [
        [{ authorization: `Bearer ${token}`, origin: "https://example.com" }, 403],
        [{ cookie: `${cookie.name}=${cookie.value}`, origin: "http://127.0.0.1:1" }, 403],
        [{ cookie: `${cookie.name}=${cookie.value}`, origin: guarded.address }, 200],
        [{ cookie: `${cookie.name}=00` }, 401],
    ]) {
        const answer = await fetch(`${guarded.address}/api/openclaw/reconnect`, { method: "POST", headers });
        assert.equal(answer.status, status, JSON.stringify(headers));
    }
});
