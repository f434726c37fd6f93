// Messages, newest first, a page at a time; and one message's life.
import { useComputed, useSignal } from "@preact/signals";
import { get, post, Problem, type Query } from "../api";
import { bytes, millis, words } from "../format";
import { changes, entries, now, overview } from "../live";
import { Action, Ago, Empty, Id, Panel, Select, Status, Text, Time, tone } from "../parts/bits";
import { useFollow } from "../parts/follow";
import { useList } from "../parts/list";
import { Rows, type Column } from "../parts/rows";
import { href, refine, route } from "../router";
import type { Detail, Entry, Row, Step } from "../types";

const STATUSES: [string, string][] = [
    ["", "all"], ["pending", "pending"], ["sending", "sending"], ["delivered", "delivered"], ["failed", "failed"],
    ["expired", "expired"], ["held", "held"], ["received", "received"], ["processed", "processed"], ["rejected", "rejected"], ["pruned", "pruned"],
];
const DIRECTIONS: [string, string][] = [["", "both ways"], ["outbound", "outbound"], ["inbound", "inbound"]];
const TYPES: [string, string][] = [
    ["", "all types"],
    ...["task_offer", "task_accept", "task_reject", "task_update", "task_complete", "task_cancel", "task_input", "state_sync", "capability_query", "capability_response", "nack"]
        .map((name): [string, string] => [name, name]),
];
const FILTERS = ["status", "direction", "type", "peer", "task_id", "namespace"];

export const columns: Column<Row>[] = [
    { name: "Status", cell: (row) => <Status of={row.status} /> },
    { name: "Type", cell: (row) => <>{row.message_type}{row.sealed && <small class="tag">sealed</small>}</> },
    { name: "Way", cell: (row) => <span class="way" title={row.direction}>{row.direction === "outbound" ? "to " : "from "}<b>{row.peer}</b></span> },
    { name: "Message", wide: true, cell: (row) => <Id of={row.message_id} /> },
    { name: "Attempts", wide: true, end: true, cell: (row) => row.attempts || <span class="dim">0</span> },
    { name: "Next attempt", wide: true, cell: (row) => (row.status === "pending" ? <Next row={row} /> : <span class="dim">{row.reason ? words(row.reason) : "–"}</span>) },
    { name: "Written", end: true, cell: (row) => <Time at={row.created_at} /> },
];

function Next({ row }: { row: Row }) {
    const at = row.next_attempt_at;
    const text = useComputed(() => (!at || Date.parse(at) <= now.value ? "due" : `in ${millis(Date.parse(at) - now.value)}`));
    return <>{text}</>;
}

export function Messages() {
    const { query, id } = route.value;
    if (id) return overview.value?.routes.messages ? <Message id={id} /> : <Recorded id={id} />;
    const asked: Query = { limit: 50 };
    for (const name of FILTERS) asked[name] = query.get(name) ?? "";
    const set = (name: string) => (value: string) => refine({ [name]: value });
    const list = useList<Row>(overview.value?.routes.messages, asked, "messages", key, changes.value.message);
    return (
        <Panel title="Messages" class="tall" note={list.busy ? "reading…" : "follows what happens"}>
            <form class="filters" onSubmit={(event) => event.preventDefault()}>
                <Select label="Status" value={String(asked.status)} options={STATUSES} set={set("status")} />
                <Select label="Direction" value={String(asked.direction)} options={DIRECTIONS} set={set("direction")} />
                <Select label="Type" value={String(asked.type)} options={TYPES} set={set("type")} />
                <Text label="Peer" value={String(asked.peer)} set={set("peer")} search />
                <Text label="Task" value={String(asked.task_id)} set={set("task_id")} />
                {overview.value?.program === "openclaw-server" && <Text label="Namespace" value={String(asked.namespace)} set={set("namespace")} />}
            </form>
            {list.error && <p class="bad" role="alert">{list.error}</p>}
            {list.loaded && list.rows.length === 0 && !list.next && <Empty>No message is like this.</Empty>}
            {list.rows.length > 0 && <Rows label="Messages" rows={list.rows} columns={columns} id={key} open={(row) => href("messages", row.message_id)} />}
            <More list={list} />
        </Panel>
    );
}

export function More({ list }: { list: { next: string | null; isFull: boolean; busy: boolean; more: () => void; rows: unknown[] } }) {
    if (!list.next) return null;
    if (list.isFull) return <p class="note">The page keeps {list.rows.length} messages; narrow the filters to see older ones.</p>;
    return <button type="button" class="more" disabled={list.busy} onClick={list.more}>Older messages</button>;
}

export function key(row: Row): string {
    return `${row.direction} ${row.peer} ${row.message_id}`;
}

function Message({ id }: { id: string }) {
    const path = overview.value?.routes.messages;
    const detail = useSignal<Detail | null>(null);
    const unknown = useSignal("");
    const changed = changes.value.message;
    const error = useFollow(path && `${path}/${id}`, changed, async (signal) => {
        try {
            detail.value = await get<Detail>(`${path}/${encodeURIComponent(id)}`, {}, signal);
            unknown.value = "";
        } catch (problem) {
            if (!(problem instanceof Problem) || problem.status !== 404) throw problem;
            unknown.value = id;
        }
    });
    const row = detail.value;
    // What was refused is in the audit log and nowhere else.
    if (unknown.value === id) return <Recorded id={id} />;
    return (
        <Panel title="Message" class="tall" note={<a href={href("messages")} data-back>All messages</a>}>
            {error && <p class="bad" role="alert">{error}</p>}
            {row && row.message_id === id && (
                <>
                    <div class="head">
                        <Status of={row.status} />
                        <h3>{row.message_type} {row.direction === "outbound" ? "to" : "from"} {row.peer}</h3>
                        {row.status === "failed" && overview.value?.routes.retry && (
                            <Action label="Send again" run={() => again([row.message_id])} />
                        )}
                        {row.status === "failed" && overview.value?.routes.prune && (
                            <Action label="Prune" tone="danger" sure="Never deliver it?" run={() => post(overview.value!.routes.prune!, { message_ids: [row.message_id] }).then(() => "pruned")} />
                        )}
                    </div>
                    {overview.value?.routes.explain && <Explanation id={row.message_id} at={row.updated_at + String(changed)} />}
                    <dl class="facts">
                        <Fact name="Id"><span class="id">{row.message_id}</span></Fact>
                        <Fact name="Namespace">{row.namespace}</Fact>
                        <Fact name="Reason">{row.reason ? words(row.reason) : "–"}</Fact>
                        <Fact name="Attempts">{row.attempts}</Fact>
                        {row.next_attempt_at && <Fact name="Next attempt"><Time at={row.next_attempt_at} /></Fact>}
                        <Fact name="Size">{bytes(row.size_bytes)}</Fact>
                        <Fact name="Written"><Time at={row.created_at} /> (<Ago at={row.created_at} /> ago)</Fact>
                        {row.maybe_delivered && <Fact name="Delivery">bytes left and were not answered: it may have arrived</Fact>}
                        {row.receipt && <Fact name="Receipt"><code>{JSON.stringify(row.receipt)}</code></Fact>}
                    </dl>
                    <h3>Life</h3>
                    <Life steps={row.history} />
                    <h3>Payload</h3>
                    <pre tabIndex={0} aria-label="Payload">{JSON.stringify(row.payload, null, 2)}</pre>
                </>
            )}
        </Panel>
    );
}

/** One sentence on why it is where it is. */
function Explanation({ id, at }: { id: string; at: string }) {
    const said = useSignal("");
    useFollow(id, at, async (signal) => {
        const path = overview.peek()!.routes.explain!.replace("{id}", encodeURIComponent(id));
        const { explanation } = await get<{ explanation: string }>(path, {}, signal);
        said.value = explanation.replace(`${id} `, "It ");
    });
    return said.value ? <p class="said">{said}</p> : null;
}

/** A message that is not in the store, with what was recorded of it. */
function Recorded({ id }: { id: string }) {
    const path = overview.value?.routes.audit;
    const found = useSignal<Entry[] | null>(null);
    const newest = entries.value.find((entry) => entry.resource === id)?.seq;
    const error = useFollow(path && `${path}/${id}`, newest, async (signal) => {
        const page = await get<{ entries: Entry[] }>(path!, { resource: id, limit: 200 }, signal);
        found.value = page.entries.reverse();
    });
    const steps = (found.value ?? []).map((entry): Step => {
        const details = entry.details ?? {};
        const text = (name: string) => (details[name] ? String(details[name]) : null);
        const status = { "message.sent": "sending", "message.retry": "pending" }[entry.event] ?? entry.event.split(".")[1]!;
        const attempts = Number(details.attempt ?? details.attempts ?? 0);
        return { at: entry.timestamp, event: entry.event, actor: entry.actor, status, attempts, error: text("error"), reason: text("reason") };
    });
    return (
        <Panel title="Message" class="tall" note={<a href={href("audit", "", { resource: id })} data-back>In the audit log</a>}>
            <div class="head"><h3 class="id">{id}</h3></div>
            {error && <p class="bad" role="alert">{error}</p>}
            {found.value?.length === 0 && <Empty>Nothing is recorded of this id.</Empty>}
            <h3>Life</h3>
            <Life steps={steps} />
        </Panel>
    );
}

export function Fact(props: { name: string; children: preact.ComponentChildren }) {
    return <div><dt>{props.name}</dt><dd>{props.children}</dd></div>;
}

export async function again(ids: string[]): Promise<string> {
    const answer = await post<{ retried: number; renamed: Record<string, string> }>(overview.value!.routes.retry!, { message_ids: ids });
    const renamed = Object.keys(answer.renamed ?? {}).length;
    return `${answer.retried} sent again${renamed ? `, ${renamed} under a new id` : ""}`;
}

const SAID: Record<string, string> = {
    "message.queued": "queued", "message.sent": "sent", "message.delivered": "delivered", "message.retry": "no success, tried again later",
    "message.failed": "given up", "message.expired": "expired", "message.received": "received", "message.processed": "processed",
    "message.rejected": "rejected", "message.duplicate": "arrived again", "message.held": "held", "message.released": "released", "message.pruned": "pruned",
};

/** One message's life: each step, how long after the one before, and what went wrong. */
export function Life({ steps }: { steps: Step[] }) {
    return (
        <ol class="life">
            {steps.map((step, at) => {
                const before = steps[at - 1];
                const gap = before ? Date.parse(step.at) - Date.parse(before.at) : 0;
                const isAttempt = step.status === "sending";
                return (
                    <li key={at} class={tone(step.error ? "failed" : (step.status ?? "info"))}>
                        <div class="when"><Time at={step.at} />{gap > 0 && <small>+{millis(gap)}</small>}</div>
                        <div>
                            <b>{isAttempt ? `attempt ${step.attempts}` : (SAID[step.event] ?? step.event)}</b>
                            <small>by {step.actor}</small>
                            {step.error && <p class="bad">{step.error}</p>}
                            {step.reason && <p>{words(step.reason)}</p>}
                            {step.next_attempt_at && step.status === "pending" && <p>next attempt <Time at={step.next_attempt_at} /></p>}
                            {step.maybe_delivered && step.status !== "delivered" && <p>it may have arrived</p>}
                            {step.retry_of && <p>in place of <a href={href("messages", step.retry_of)}>{step.retry_of}</a></p>}
                        </div>
                    </li>
                );
            })}
        </ol>
    );
}
