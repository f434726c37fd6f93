// Who is there, and how much each one does.
import { useSignal } from "@preact/signals";
import { get } from "../api";
import { changes, overview, points } from "../live";
import { Ago, Empty, Panel, Status, Text } from "../parts/bits";
import { useFollow } from "../parts/follow";
import { href } from "../router";
import type { Agent, Task } from "../types";

const SHOWN_MAX = 200;

export function Agents() {
    return overview.value?.routes.agents ? <Registered /> : <Own />;
}

function Registered() {
    const path = overview.value?.routes.agents;
    const agents = useSignal<Agent[] | null>(null);
    const asked = useSignal("");
    // Heartbeats are not recorded one by one: a look with every fifth sample.
    const beat = Math.floor((points.value.at(-1)?.[0] ?? 0) / 10_000);
    const error = useFollow(path, `${changes.value.agent} ${beat}`, async (signal) => {
        agents.value = (await get<{ agents: Agent[] }>(path!, {}, signal)).agents;
    });
    const order = ["online", "lost", "offline"];
    const found = (agents.value ?? [])
        .filter((agent) => [agent.agent_id, agent.name ?? "", ...agent.agent_types].some((text) => text.includes(asked.value)))
        .sort((one, other) => order.indexOf(one.status) - order.indexOf(other.status) || other.running.length - one.running.length || one.agent_id.localeCompare(other.agent_id));
    return (
        <Panel title="Agents" class="tall" note={agents.value && `${agents.value.length} known`}>
            <form class="filters" onSubmit={(event) => event.preventDefault()}>
                <Text label="Name or type" value={asked.value} set={(value) => (asked.value = value)} search />
            </form>
            {error && <p class="bad" role="alert">{error}</p>}
            {agents.value?.length === 0 && <Empty>No agent has registered yet.</Empty>}
            <div class="agents">
                {found.slice(0, SHOWN_MAX).map((agent) => (
                    <article key={`${agent.namespace}/${agent.agent_id}`} class={agent.status}>
                        <header><Status of={agent.status} /><h3 title={agent.agent_id}>{agent.agent_id}</h3></header>
                        <Load running={agent.running.length} most={agent.max_concurrent_tasks} />
                        <p class="dim">{agent.agent_types.slice(0, 6).join(", ") || "any type"}{agent.agent_types.length > 6 && ` and ${agent.agent_types.length - 6} more`}</p>
                        <p>{agent.last_heartbeat ? <>heard <Ago at={agent.last_heartbeat} /> ago</> : "not heard since the server started"}{agent.namespace !== "default" && `, in ${agent.namespace}`}</p>
                        {agent.running.map((task) => <a key={task.task_id} class="run" href={href("tasks", task.task_id, agent.namespace === "default" ? {} : { namespace: agent.namespace })}>{task.task_id}</a>)}
                    </article>
                ))}
            </div>
            {found.length > SHOWN_MAX && <p class="note">and {found.length - SHOWN_MAX} more: narrow the filter</p>}
        </Panel>
    );
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
    useFollow(capabilities && path, changes.value.task, async (signal) => {
        profile.value = await get<typeof profile.value>(capabilities!, {}, signal);
        tasks.value = (await get<{ tasks: Task[] }>(path!, {}, signal)).tasks;
    });
    if (!profile.value) return null;
    const running = tasks.value.filter((task) => ["in_progress", "accepted"].includes(task.status));
    const types = [...new Set([...profile.value.agent_types, ...tasks.value.map((task) => task.agent ?? "").filter(Boolean)])];
    return (
        <Panel title="Agents" class="tall" note={<Load running={running.length} most={profile.value.max_concurrent_tasks ?? 1} />}>
            {types.length === 0 && <Empty>No agent is configured on this machine.</Empty>}
            <div class="agents">
                {types.map((type) => {
                    const mine = tasks.value.filter((task) => task.agent === type);
                    const now = mine.filter((task) => task.status === "in_progress");
                    const ended = (status: string) => mine.filter((task) => task.status === status).length;
                    return (
                        <article key={type} class={now.length ? "online" : ""}>
                            <header><h3>{type}</h3></header>
                            <p><b>{now.length}</b> running, {ended("completed")} completed, {ended("failed")} failed</p>
                            {now.map((task) => <a key={task.task_id} class="run" href={href("tasks", task.task_id)}>{task.description || task.task_id}</a>)}
                        </article>
                    );
                })}
            </div>
        </Panel>
    );
}
