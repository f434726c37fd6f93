// Who is there, and how much each one does.
import { useSignal } from "@preact/signals";
import { get, post } from "../api";
import { exact } from "../format";
import { changes, overview, points } from "../live";
import { Action, Ago, Empty, Panel, Status, Text } from "../parts/bits";
import { useFollow } from "../parts/follow";
import { href } from "../router";
import type { Agent, Task } from "../types";

const SHOWN_MAX = 200;

export function Agents() {
    return overview.value?.routes.agents ? <Registered /> : <Own />;
}

const ORDER = ["online", "lost", "offline"];

function Registered() {
    const path = overview.value?.routes.agents;
    const agents = useSignal<Agent[] | null>(null);
    const more = useSignal(false);
    const asked = useSignal("");
    const held = useSignal(0);
    const counts = overview.value?.agents ?? {};
    const known = ORDER.reduce((total, status) => total + (counts[status] ?? 0), 0);
    // Heartbeats are not recorded one by one: a look with every fifth sample.
    const beat = Math.floor((points.value.at(-1)?.[0] ?? 0) / 10_000);
    const error = useFollow(path, `${changes.value.agent} ${beat} ${asked.value} ${known} ${held.value}`, async (signal) => {
        const found: Agent[] = [];
        more.value = false;
        for (const status of ORDER) {
            let after: string | undefined;
            do {
                const limit = SHOWN_MAX - found.length;
                if (limit === 0) {
                    more.value = true;
                    break;
                }
                const page = await get<{ agents: Agent[]; next: string | null }>(path!, { status, text: asked.peek(), limit, after }, signal);
                found.push(...page.agents);
                after = page.next ?? undefined;
            } while (after);
        }
        agents.value = found;
    });
    const found = [...agents.value ?? []]
        .sort((one, other) => ORDER.indexOf(one.status) - ORDER.indexOf(other.status) || other.running.length - one.running.length || one.agent_id.localeCompare(other.agent_id));
    return (
        <Panel title="Agents" class="tall" note={`${exact(known)} known`}>
            <form class="filters" onSubmit={(event) => event.preventDefault()}>
                <Text label="Name or type" value={asked.value} set={(value) => (asked.value = value)} search />
            </form>
            {error && <p class="bad" role="alert">{error}</p>}
            {agents.value?.length === 0 && <Empty>{known === 0 ? "No agent has registered yet." : "No agent is like this."}</Empty>}
            <div class="agents">
                {found.map((agent) => (
                    <article key={`${agent.namespace}/${agent.agent_id}`} class={agent.status}>
                        <header><Status of={agent.status} /><h3 title={agent.agent_id}>{agent.agent_id}</h3></header>
                        <Load running={agent.running.length} most={agent.max_concurrent_tasks} />
                        <p class="dim">{agent.agent_types.slice(0, 6).join(", ") || "any type"}{agent.agent_types.length > 6 && ` and ${agent.agent_types.length - 6} more`}</p>
                        <p>{agent.last_heartbeat ? <>heard <Ago at={agent.last_heartbeat} /> ago</> : "not heard since the server started"}{agent.namespace !== "default" && `, in ${agent.namespace}`}</p>
                        {agent.running.map((task) => <a key={task.task_id} class="run" href={href("tasks", task.task_id, agent.namespace === "default" ? {} : { namespace: agent.namespace })}>{task.task_id}</a>)}
                        <Hold agent={agent} done={() => void (held.value += 1)} />
                    </article>
                ))}
            </div>
            {more.value && <p class="note">{asked.value ? "and more" : `and ${exact(known - found.length)} more`}: narrow the filter</p>}
        </Panel>
    );
}

/** Holds what lies in an agent's mailbox, and lets it go on. */
function Hold({ agent: { agent_id, namespace, paused }, done }: { agent: Agent; done: () => void }) {
    const path = `${overview.value?.routes.agents}/${encodeURIComponent(agent_id)}`;
    const change = (word: string) => () => post(`${path}/${word}?namespace=${encodeURIComponent(namespace)}`).then(done);
    return paused
        ? <p><span class="wait">held by {paused.by} for <Ago at={paused.since} /></span> <Action key="resume" label="Resume deliveries" run={change("resume")} /></p>
        : <p><Action key="pause" label="Pause deliveries" sure="Hold its mailbox?" run={change("pause")} /></p>;
}

function Load({ running, most }: { running: number; most: number }) {
    return (
        <div class="load">
            <meter min={0} max={Math.max(most, 1)} value={running} aria-label="Load" />
            <span><b>{running}</b> of {most}</span>
        </div>
    );
}

/** A bridge's own agents: what it registered, and which task each of them has. */
function Own() {
    const routes = overview.value?.routes;
    const profile = useSignal<{ agent_types: string[]; max_concurrent_tasks?: number; capabilities: string[] } | null>(null);
    const tasks = useSignal<Task[]>([]);
    const { capabilities, tasks: path } = routes ?? {};
    const seen = overview.value;
    // A count may come later than the event that it counts.
    const changed = `${changes.value.task} ${seen?.tasks.in_progress}`;
    useFollow(capabilities && path, changed, async (signal) => {
        profile.value = await get<typeof profile.value>(capabilities!, {}, signal);
        const running = { status: "in_progress", order: "recent", limit: SHOWN_MAX, brief: "true" };
        tasks.value = (await get<{ tasks: Task[] }>(path!, running, signal)).tasks;
    });
    if (!profile.value) return null;
    const running = (seen?.tasks.in_progress ?? 0) + (seen?.tasks.accepted ?? 0);
    const counts = new Map(seen?.tasks_by_agent?.map((it) => [it.agent, it.tasks]));
    const types = [...new Set([...profile.value.agent_types, ...counts.keys()])];
    return (
        <Panel title="Agents" class="tall" note={<Load running={running} most={profile.value.max_concurrent_tasks ?? 1} />}>
            {types.length === 0 && <Empty>No agent is configured on this machine.</Empty>}
            <div class="agents">
                {types.map((type) => {
                    const now = tasks.value.filter((task) => task.agent === type);
                    const count = (status: string) => counts.get(type)?.[status] ?? 0;
                    return (
                        <article key={type} class={now.length ? "online" : ""}>
                            <header><h3>{type}</h3></header>
                            <p><b>{count("in_progress")}</b> running, {exact(count("completed"))} completed, {exact(count("failed"))} failed</p>
                            {now.map((task) => <a key={task.task_id} class="run" href={href("tasks", task.task_id)}>{task.description || task.task_id}</a>)}
                        </article>
                    );
                })}
            </div>
        </Panel>
    );
}
