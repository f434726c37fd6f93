// Tasks as they move: a lane for each state, with the newest that came into it; and one task.
import { useSignal } from "@preact/signals";
import { get, post } from "../api";
import { count, exact } from "../format";
import { changes, entries, overview } from "../live";
import { Action, Ago, Empty, Panel, Status, Time, tone } from "../parts/bits";
import { useFollow } from "../parts/follow";
import { href, route } from "../router";
import type { Entry, Task } from "../types";
import { Fact } from "./messages";

const LANE_MAX = 20;
const OPEN = ["pending", "offered", "accepted", "in_progress", "input_required"];
const ENDED = ["completed", "failed", "expired", "cancelled"];
const ENDINGS: Record<string, string> = {
    "task.complete": "completed", "task.fail": "failed", "task.expire": "expired", "task.cancel": "cancelled",
};

export function Tasks() {
    const { id, query } = route.value;
    const namespace = query.get("namespace") ?? "";
    return id ? <One key={`${namespace}/${id}`} id={id} namespace={namespace} /> : <Board />;
}

function Board() {
    const seen = overview.value;
    const lanes = useLanes();
    if (!seen) return null;
    const known = [...OPEN, ...ENDED].filter((status) => OPEN.slice(0, 4).includes(status) || (seen.tasks[status] ?? 0) > 0 || status === "completed");
    const total = Object.values(seen.tasks).reduce((sum, it) => sum + it, 0);
    return (
        <Panel title="Tasks" class="tall" note={`${exact(total)} in all`}>
            {lanes.error && <p class="bad" role="alert">{lanes.error}</p>}
            {total === 0 && lanes.loaded && <Empty>No task yet. One comes with a PRD, from the command line, or over the REST interface.</Empty>}
            <div class="board">
                {known.map((status) => {
                    const tasks = lanes.of(status);
                    const number = seen.tasks[status] ?? 0;
                    return (
                        <section key={status} aria-label={status.replaceAll("_", " ")}>
                            <h3 class={tone(status)}>{status.replaceAll("_", " ")}<b title={exact(number)}>{count(number)}</b></h3>
                            {tasks.map((task) => <Card key={`${task.namespace}/${task.task_id}`} task={task} />)}
                            {number > tasks.length && tasks.length > 0 && <p class="note">and {count(number - tasks.length)} more</p>}
                        </section>
                    );
                })}
            </div>
        </Panel>
    );
}

/** Open tasks of each state, and those that ended last. Never all of them. */
function useLanes() {
    const path = overview.value?.routes.tasks;
    const isServer = overview.value?.program === "openclaw-server";
    const found = useSignal<Map<string, Task[]>>(new Map());
    const loaded = useSignal(false);
    // A count may come later than the event that it counts.
    const changed = `${changes.value.task} ${JSON.stringify(overview.value?.tasks)}`;
    const error = useFollow(path, changed, async (signal) => {
        found.value = isServer ? await ofServer(path!, signal) : await ofBridge(path!, signal);
        loaded.value = true;
    });
    return { error, loaded: loaded.value, of: (status: string) => found.value.get(status) ?? [] };
}

async function ofServer(path: string, signal: AbortSignal): Promise<Map<string, Task[]>> {
    const counts = overview.peek()?.tasks ?? {};
    const asked = OPEN.filter((status) => counts[status]);
    const spaces = overview.peek()?.namespaces ?? ["default"];
    const lanes = new Map(await Promise.all(asked.map(async (status) => {
        const pages = await Promise.all(spaces.map((namespace) => {
            const page = get<{ tasks: Task[] }>(path, { status, namespace, limit: LANE_MAX, brief: "true" }, signal);
            // A token may be for one namespace only.
            return namespace === "default" ? page : page.catch(() => ({ tasks: [] }));
        }));
        return [status, pages.flatMap((page) => page.tasks).slice(0, LANE_MAX)] as const;
    })));
    // A list of ended tasks begins with the oldest; the log says which ended last.
    const audit = overview.peek()?.routes.audit;
    if (!audit) return lanes;
    const endings = await Promise.all(Object.keys(ENDINGS).filter((event) => counts[ENDINGS[event]!]).map(async (event) => {
        // The same event at the level of debugging only says that the agent has a free slot again.
        const page = await get<{ entries: Entry[] }>(audit, { event, level: "info", limit: 2 * LANE_MAX }, signal);
        // Two parties may each record one ending.
        const newest = [...new Map(page.entries.reverse().map((entry) => [`${entry.namespace}/${entry.resource}`, entry])).values()].reverse();
        const tasks = await Promise.all(newest.slice(0, LANE_MAX).map((entry) => ended(path, entry, signal)));
        return [ENDINGS[event]!, tasks.filter((task) => task.status === ENDINGS[event])] as const;
    }));
    for (const [status, tasks] of endings) lanes.set(status, tasks);
    return lanes;
}

const ENDED_KEPT_MAX = 200;
const endedTasks = new Map<string, Task>();

/** A task that ended does not change any more: what the server says of it is asked for once. */
async function ended(path: string, entry: Entry, signal: AbortSignal): Promise<Task> {
    const key = `${entry.namespace}/${entry.resource}`;
    const known = endedTasks.get(key);
    if (known) return known;
    let task: Task;
    try {
        // A card shows no result, which may be large.
        const { result: _, history: __, ...shown } = await get<Task>(`${path}/${encodeURIComponent(entry.resource)}`, { namespace: entry.namespace }, signal);
        task = shown;
    } catch {
        // The log says this much.
        return {
            task_id: entry.resource, namespace: entry.namespace, description: "", priority: "", status: ENDINGS[entry.event]!, attempt: 0,
            progress: null, created_at: entry.timestamp, updated_at: entry.timestamp, agent_id: entry.actor,
        };
    }
    if (endedTasks.size >= ENDED_KEPT_MAX) endedTasks.delete(endedTasks.keys().next().value!);
    if (ENDED.includes(task.status)) endedTasks.set(key, task);
    return task;
}

async function ofBridge(path: string, signal: AbortSignal): Promise<Map<string, Task[]>> {
    const counts = overview.peek()?.tasks ?? {};
    const asked = [...OPEN, ...ENDED].filter((status) => counts[status]);
    return new Map(await Promise.all(asked.map(async (status) => {
        const page = await get<{ tasks: Task[] }>(path, { status, order: "recent", limit: LANE_MAX, brief: "true" }, signal);
        return [status, page.tasks] as const;
    })));
}

/** What a link says of a task that is not in the usual namespace. */
function elsewhere(namespace?: string): Record<string, string> {
    return namespace && namespace !== "default" && overview.value?.program === "openclaw-server" ? { namespace } : {};
}

function Card({ task }: { task: Task }) {
    const who = task.assigned_agent ?? task.agent ?? task.agent_id;
    const address = href("tasks", task.task_id, elsewhere(task.namespace));
    return (
        <a class={`card ${tone(task.status)}`} href={address} data-row={task.task_id}>
            <b>{task.description || task.task_id}</b>
            {task.status === "in_progress" && task.progress !== null && (
                <progress max={1} value={task.progress} aria-label={`${Math.round(task.progress * 100)} %`} />
            )}
            <small class="about">
                <span>
                    {[task.task_type ?? task.type, who, task.attempt > 1 ? `attempt ${task.attempt}` : "", task.priority && task.priority !== "normal" ? task.priority : ""]
                        .filter(Boolean).join(" · ")}
                </span>
                <Ago at={task.updated_at ?? task.finished_at ?? task.started_at ?? task.created_at} />
            </small>
            {task.pending_reason && <small class="wait" title={task.pending_reason}>{task.pending_reason}</small>}
        </a>
    );
}

function One({ id, namespace }: { id: string; namespace: string }) {
    const seen = overview.value;
    const task = useSignal<Task | null>(null);
    const path = seen?.routes.tasks;
    const error = useFollow(path && `${path}/${namespace}/${id}`, changes.value.task, async (signal) => {
        const query = seen?.program === "openclaw-server" ? { namespace } : {};
        task.value = await get<Task>(`${path}/${encodeURIComponent(id)}`, query, signal);
    });
    const it = task.value;
    const isOver = it && ENDED.includes(it.status);
    return (
        <Panel title="Task" class="tall" note={<a href={href("tasks")} data-back>All tasks</a>}>
            {error && <p class="bad" role="alert">{error}</p>}
            {it && (
                <>
                    <div class="head">
                        <Status of={it.status} />
                        <h3>{it.description || it.task_id}</h3>
                        {!isOver && seen?.routes.cancel && <Action label="Cancel" sure="Cancel this task?" tone="danger" run={() => post(`${seen.routes.cancel!.replace("{id}", encodeURIComponent(id))}`).then(() => {})} />}
                    </div>
                    {it.status === "in_progress" && it.progress !== null && <progress max={1} value={it.progress} aria-label={`${Math.round(it.progress * 100)} %`} />}
                    <dl class="facts">
                        <Fact name="Id"><span class="id">{it.task_id}</span></Fact>
                        {namespace && <Fact name="Namespace">{namespace}</Fact>}
                        <Fact name="Type">{it.task_type ?? it.type}</Fact>
                        <Fact name="Priority">{it.priority}</Fact>
                        <Fact name="Agent">{it.assigned_agent ?? it.agent ?? it.agent_id ?? "–"}</Fact>
                        <Fact name="Attempt">{it.attempt}</Fact>
                        <Fact name="Created"><Time at={it.created_at} /></Fact>
                        {it.pending_reason && <Fact name="Waits because">{it.pending_reason}</Fact>}
                        {it.message && <Fact name="Says">{it.message}</Fact>}
                        {it.error && <Fact name="Error"><span class="bad">{it.error.message ?? it.error.code}</span></Fact>}
                    </dl>
                    {it.history && <><h3>Life</h3><History task={it} /></>}
                    {!it.history && <><h3>Latest events</h3><Movements id={id} /></>}
                    {it.result !== null && it.result !== undefined && <><h3>Result</h3><pre tabIndex={0} aria-label="Result">{JSON.stringify(it.result, null, 2)}</pre></>}
                </>
            )}
        </Panel>
    );
}

function History({ task }: { task: Task }) {
    return (
        <ol class="life">
            {task.history!.map((step, at) => (
                <li key={at} class={tone(step.status)}>
                    <div class="when"><Time at={step.at} /></div>
                    <div>
                        <b>{step.status.replaceAll("_", " ")}</b>
                        <small>attempt {step.attempt}{step.agent_id ? `, ${step.agent_id}` : ""}{step.late ? ", late" : ""}</small>
                        {step.detail && <p>{step.detail}</p>}
                    </div>
                </li>
            ))}
        </ol>
    );
}

function Movements({ id }: { id: string }) {
    const path = overview.value?.routes.audit;
    const found = useSignal<Entry[]>([]);
    const newest = entries.value.find((entry) => entry.resource === id)?.seq;
    useFollow(path && `${path}/${id}`, newest, async (signal) => {
        const page = await get<{ entries: Entry[] }>(path!, { event: "task.*", resource: id, limit: 50 }, signal);
        found.value = page.entries.reverse();
    });
    return (
        <ol class="life">
            {found.value.map((entry) => (
                <li key={entry.seq} class={tone(ENDINGS[entry.event] ?? "accepted")}>
                    <div class="when"><Time at={entry.timestamp} /></div>
                    <div><b>{entry.event.replace("task.", "")}</b><small>by {entry.actor}</small></div>
                </li>
            ))}
        </ol>
    );
}
