// Everything at a glance: the link, what waits and for whom, and how it went.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { get, post } from "../api";
import { bytes, count, duration, exact, millis, rate } from "../format";
import { columns, entries, now, overview, points, refresh, type Point } from "../live";
import { Action, Ago, Choice, Empty, Panel, Status, tone } from "../parts/bits";
import { Chart, type Line } from "../parts/chart";
import { href } from "../router";
import type { Overview as Seen } from "../types";
import { Lines } from "./audit";

const STATUS_ORDER = ["pending", "sending", "held", "failed", "received", "delivered", "processed", "expired", "rejected", "pruned"];

export function Overview() {
    const seen = overview.value;
    if (!seen) return <Empty>Waiting for the first answer…</Empty>;
    return (
        <>
            <Glance seen={seen} />
            <Charts isBridge={seen.program === "loki"} />
            <div class="two">
                <ByStatus seen={seen} />
                <ByPeer seen={seen} />
            </div>
            {seen.routes.audit && (
                <Panel title="Latest events" note={<a href={href("audit")}>All events</a>}>
                    <Lines entries={entries.value.slice(0, 8)} />
                </Panel>
            )}
        </>
    );
}

function sum(seen: Seen, direction: string, statuses: string[]): number {
    const asked = seen.messages.filter((it) => it.direction === direction && statuses.includes(it.status));
    return asked.reduce((total, it) => total + it.count, 0);
}

function Glance({ seen }: { seen: Seen }) {
    const waiting = sum(seen, "outbound", ["pending", "sending"]);
    const failed = sum(seen, "outbound", ["failed"]);
    const running = ["accepted", "in_progress", "input_required"].reduce((total, it) => total + (seen.tasks[it] ?? 0), 0);
    const open = ["pending", "offered"].reduce((total, it) => total + (seen.tasks[it] ?? 0), 0);
    return (
        <div class="glance">
            {seen.link ? <LinkTile seen={seen} /> : <AgentsTile seen={seen} />}
            <a class="tile" href={seen.routes.messages ? href("messages", "", { status: "pending" }) : href("overview")}>
                <h3>Waiting</h3>
                <strong title={exact(waiting)}>{count(waiting)}</strong>
                <p>{seen.oldest_waiting_at ? <>oldest for <Ago at={seen.oldest_waiting_at} /></> : "nothing waits"}</p>
            </a>
            <a class={`tile ${failed ? "alarm" : ""}`} href={seen.routes.messages ? href("letters") : href("overview")}>
                <h3>Dead letters</h3>
                <strong title={exact(failed)}>{count(failed)}</strong>
                <p>{failed ? "given up, until you decide" : "none"}</p>
            </a>
            <a class="tile" href={href("tasks")}>
                <h3>Tasks</h3>
                <strong>{count(running)}</strong>
                <p>running, {count(open)} open, {count(seen.tasks.completed ?? 0)} completed</p>
            </a>
            {seen.storage && (
                <div class="tile">
                    <h3>Journal</h3>
                    <strong>{bytes(seen.storage.journal_bytes)}</strong>
                    <p>{seen.storage.rows_behind > 200 ? `rows ${count(seen.storage.rows_behind)} frames behind` : <>up for <Ago at={seen.started_at} /></>}</p>
                </div>
            )}
        </div>
    );
}

function LinkTile({ seen }: { seen: Seen }) {
    const link = seen.link!;
    const paused = link.paused?.find((pause) => pause.to === null);
    const word = paused ? "paused" : link.circuit === "parked" ? "disconnected" : link.connected ? "connected" : link.circuit === "open" ? "waiting" : "connecting";
    const steer = link.circuit === "parked"
        ? { route: seen.routes.reconnect, label: "Connect" }
        : { route: seen.routes.disconnect, label: "Disconnect", sure: "End the session?" };
    const pause = paused
        ? { route: seen.routes.resume, label: "Resume deliveries" }
        : { route: seen.routes.pause, label: "Pause deliveries", sure: "Hold every message back?" };
    return (
        <div class={`tile link ${link.connected ? "" : "alarm"}`}>
            <h3>Link</h3>
            <strong class={tone(word)}>{word}</strong>
            <p>
                {link.connected ? link.transport : "without a session"}
                {link.since && <> for <Ago at={link.since} /></>}
                {link.connected && link.latency_ms !== null && <>, answers in {millis(link.latency_ms)}</>}
            </p>
            {paused && <p class="wait">deliveries paused by {paused.by} for <Ago at={paused.since} /></p>}
            {!link.connected && link.last_error && <p class="bad reason">{link.last_error}</p>}
            {link.circuit_until && !link.connected && <p>next attempt {clockLeft(link.circuit_until)}</p>}
            <div class="buttons">
                {pause.route && <Action key={pause.label} label={pause.label} sure={pause.sure} run={() => post(pause.route!, {}).then(refresh)} />}
                {steer.route && <Action key={steer.label} label={steer.label} sure={steer.sure} run={() => post(steer.route!).then(refresh)} />}
            </div>
        </div>
    );
}

function clockLeft(until: string): string {
    const left = (Date.parse(until) - now.value) / 1_000;
    return left > 0 ? `in ${duration(left)}` : "now";
}

function AgentsTile({ seen }: { seen: Seen }) {
    const agents = seen.agents ?? {};
    return (
        <a class={`tile ${agents.lost ? "warn" : ""}`} href={href("agents")}>
            <h3>Agents</h3>
            <strong>{count(agents.online ?? 0)}</strong>
            <p>online, {count(agents.lost ?? 0)} lost, {count(agents.offline ?? 0)} offline</p>
        </a>
    );
}

function Charts({ isBridge }: { isBridge: boolean }) {
    const range = useSignal("recent");
    const day = useSignal<Point[]>([]);
    useEffect(() => {
        if (range.value !== "day") return;
        const load = () => get<{ points: Point[] }>("/api/series", { range: "day" }).then((it) => (day.value = it.points)).catch(() => {});
        void load();
        const timer = setInterval(load, 60_000);
        return () => clearInterval(timer);
    }, [range.value]);
    const shown = range.value === "day" ? day.value : points.value;
    const charts = useMemo(() => prepared(shown, columns.value), [shown, columns.value]);
    return (
        <Panel title="Over time" class="charts" note={<Choice label="Range" value={range.value} options={[["recent", "30 min"], ["day", "24 h"]]} set={(value) => (range.value = value)} />}>
            {isBridge && <Ribbon points={shown} />}
            <div class="grid">
                <Chart title="Messages a second" times={charts.times} lines={charts.flow} show={rate} />
                <Chart title="Delivery time" times={charts.times} lines={charts.times_taken} show={millis} />
                <Chart title="Queue" times={charts.times} lines={charts.queue} show={count} />
                {isBridge
                    ? <Chart title="Answers of the server" times={charts.times} lines={charts.link} show={millis} />
                    : <Chart title="Agents online" times={charts.times} lines={charts.agents} show={count} />}
            </div>
        </Panel>
    );
}

function prepared(shown: Point[], names: string[]) {
    const column = (name: string) => {
        const at = names.indexOf(name);
        return shown.map((point) => point[at] ?? null);
    };
    const seconds = column("seconds");
    const second = (name: string) => column(name).map((value, at) => (seconds[at] ? (value ?? 0) / seconds[at]! : null));
    const line = (label: string, color: string, values: (number | null)[], filled = false): Line => ({ label, color, values, filled });
    return {
        times: column("at").map((at) => at! / 1_000),
        flow: [line("delivered", "c1", second("delivered"), true), line("queued", "c2", second("queued")), line("received", "c3", second("received")), line("retried", "c4", second("retried"))],
        times_taken: [line("99 of 100", "c2", column("p99")), line("half", "c1", column("p50"), true)],
        queue: [line("waiting", "c2", column("waiting"), true), line("dead letters", "c4", column("failed"))],
        link: [line("answer", "c1", column("link_ms"), true)],
        agents: [line("online", "c1", column("agents"), true)],
    };
}

const SLICES = 60;

/** When the link was up: a slice is good only if the link was up all of its time. */
function Ribbon({ points: shown }: { points: Point[] }) {
    const up = columns.value.indexOf("up");
    if (shown.length < 2 || up < 0) return null;
    const size = Math.max(1, Math.ceil(shown.length / SLICES));
    const slices = Array.from({ length: Math.ceil(shown.length / size) }, (_, at) => shown.slice(at * size, (at + 1) * size));
    const share = shown.reduce((total, point) => total + (point[up] ?? 0), 0) / shown.length;
    const text = `The link was up ${(share * 100).toFixed(share > 0.999 ? 0 : 1)} % of the last ${duration((shown.at(-1)![0]! - shown[0]![0]!) / 1_000)}`;
    const level = (slice: Point[]) => {
        const least = Math.min(...slice.map((point) => point[up] ?? 0));
        return least >= 1 ? "good" : slice.some((point) => (point[up] ?? 0) > 0) ? "wait" : "bad";
    };
    return (
        <div class="ribbon" role="img" aria-label={text}>
            <div>{slices.map((slice, at) => <i key={at} class={level(slice)} title={new Date(slice[0]![0]!).toLocaleTimeString("en-GB")} />)}</div>
            <p>{text}</p>
        </div>
    );
}

function ByStatus({ seen }: { seen: Seen }) {
    const groups = ["outbound", "inbound"].map((direction) => {
        const found = seen.messages.filter((it) => it.direction === direction);
        found.sort((one, other) => STATUS_ORDER.indexOf(one.status) - STATUS_ORDER.indexOf(other.status));
        return { direction, found, total: found.reduce((total, it) => total + it.count, 0) };
    });
    return (
        <Panel title="Messages by status">
            {groups.every((group) => group.total === 0) && <Empty>No message yet.</Empty>}
            {groups.filter((group) => group.total > 0).map(({ direction, found, total }) => (
                <div key={direction} class="group">
                    <h3>{direction}<span>{exact(total)}</span></h3>
                    <div class="bar" aria-hidden="true">
                        {found.map((it) => <i key={it.status} class={tone(it.status)} style={{ flexGrow: it.count / total }} />)}
                    </div>
                    <ul class="figures">
                        {found.map((it) => (
                            <li key={it.status}>
                                {seen.routes.messages
                                    ? <a href={href("messages", "", { status: it.status, direction })}><Status of={it.status} /></a>
                                    : <Status of={it.status} />}
                                <b title={exact(it.count)}>{count(it.count)}</b>
                            </li>
                        ))}
                    </ul>
                </div>
            ))}
        </Panel>
    );
}

/** Pauses and resumes what goes to one recipient. */
function Hold({ peer, seen }: { peer: string; seen: Seen }) {
    const { pause, resume } = seen.routes;
    if (!pause || !resume) return null;
    const held = seen.link?.paused?.find((it) => it.to === peer);
    const route = held ? resume : pause;
    return (
        <span class="hold">
            {held && <small class="wait">paused by {held.by}</small>}
            <Action key={String(!!held)} label={held ? "Resume" : "Pause"} run={() => post(route, { to: peer }).then(refresh)} />
        </span>
    );
}

const PEERS_SHOWN = 8;

/** The filters of a recipient, which a server calls by the namespace too. */
function recipient(name: string): Record<string, string> {
    const [namespace, peer] = name.split("/");
    return { direction: "outbound", ...(peer ? { namespace: namespace!, peer } : { peer: name }) };
}

function ByPeer({ seen }: { seen: Seen }) {
    const { peers, complete } = seen.unfinished ?? { peers: [], complete: true };
    const most = Math.max(1, ...peers.map((peer) => peer.total));
    return (
        <Panel title="Unfinished by recipient" note={!complete && "of the newest 2,000"}>
            {peers.length === 0 && <Empty>{seen.unfinished ? "Nothing is unfinished." : "The rows cannot be read now; the audit log has everything."}</Empty>}
            <ul class="peers">
                {peers.slice(0, PEERS_SHOWN).map((peer) => (
                    <li key={peer.peer}>
                        <span class="name" title={peer.peer}>
                            {seen.routes.messages ? <a href={href("messages", "", recipient(peer.peer))}>{peer.peer}</a> : peer.peer}
                        </span>
                        <b title={exact(peer.total)}>{count(peer.total)}</b>
                        <Hold peer={peer.peer} seen={seen} />
                        <div class="bar" aria-hidden="true" style={{ width: `${Math.max(2, (peer.total / most) * 100)}%` }}>
                            {Object.entries(peer.messages).map(([status, number]) => <i key={status} class={tone(status)} style={{ flexGrow: number }} title={`${status}: ${exact(number)}`} />)}
                        </div>
                        <small>{Object.entries(peer.messages).map(([status, number]) => `${count(number)} ${status}`).join(", ")}</small>
                    </li>
                ))}
            </ul>
            {peers.length > PEERS_SHOWN && <p class="note">and {peers.length - PEERS_SHOWN} more</p>}
        </Panel>
    );
}
