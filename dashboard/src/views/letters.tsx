// Dead letters: what was given up, by cause, and what to do with it.
import { useSignal } from "@preact/signals";
import { get, post } from "../api";
import { count, exact, words } from "../format";
import { changes, overview } from "../live";
import { Action, Ago, Empty, Panel, Time } from "../parts/bits";
import { useFollow } from "../parts/follow";
import { useList } from "../parts/list";
import { Rows, type Column } from "../parts/rows";
import { href, refine, route } from "../router";
import type { Row } from "../types";
import { again, columns, key, More } from "./messages";

/** What narrows the list, and what is sent again or pruned with it. */
const FILTERS = ["reason", "type", "peer"];

interface Cause {
    messages: number;
    reason: string | null;
    cause: string;
    peers: string[];
    types: string[];
    oldest: string;
    newest: string;
    example: string;
}

const letterColumns: Column<Row>[] = [
    ...columns.filter((column) => ["Type", "Way", "Message", "Attempts"].includes(column.name)),
    { name: "Reason", wide: true, cell: (row) => (row.reason ? words(row.reason) : "–") },
    { name: "Written", end: true, cell: (row) => <Time at={row.created_at} /> },
    { name: "", end: true, cell: (row) => overview.value?.routes.retry && <span onClick={(event) => event.stopPropagation()}><Action label="Send again" run={() => again([row.message_id])} /></span> },
];

export function Letters() {
    const { query } = route.value;
    const asked: Record<string, string> = {};
    for (const name of FILTERS) {
        const value = query.get(name);
        if (value) asked[name] = value;
    }
    const seen = overview.value;
    const list = useList<Row>(seen?.routes.messages, { status: "failed", limit: 50, ...asked }, "messages", key, changes.value.message);
    const total = seen?.messages.find((it) => it.direction === "outbound" && it.status === "failed")?.count ?? 0;
    const isSome = Object.keys(asked).length > 0;
    const which = Object.values(asked).map(words).join(", ");
    return (
        <>
            <Causes />
            <Panel title="Dead letters" class="tall" note={<>
                <span title={exact(total)}>{count(total)} in all</span>
                {Object.entries(asked).map(([name, value]) => <button key={name} type="button" aria-label={`Without ${words(value)}`} onClick={() => refine({ [name]: "" })}>{words(value)} ✕</button>)}
                {seen?.routes.retry && total > 0 && (
                    <Action label={isSome ? "Send these again" : "Send all again"} sure={isSome ? `Send all of “${which}” again?` : `Send ${count(total)} again?`} run={async () => {
                        const answer = await post<{ retried: number }>(seen.routes.retry!, asked);
                        return `${count(answer.retried)} sent again`;
                    }} />
                )}
                {seen?.routes.prune && total > 0 && (
                    <Action label={isSome ? "Prune these" : "Prune all"} tone="danger" sure={`Never deliver ${isSome ? `all of “${which}”` : `these ${count(total)}`}?`} run={async () => {
                        const answer = await post<{ pruned: number }>(seen.routes.prune!, asked);
                        return `${count(answer.pruned)} pruned`;
                    }} />
                )}
            </>}>
                {list.error && <p class="bad" role="alert">{list.error}</p>}
                {list.loaded && list.rows.length === 0 && !list.next && <Empty>No message was given up. A message comes here when the other side refuses it for good, or when it has waited too long.</Empty>}
                {list.rows.length > 0 && <Rows label="Dead letters" rows={list.rows} columns={letterColumns} id={key} open={(row) => href("messages", row.message_id)} />}
                <More list={list} />
            </Panel>
        </>
    );
}

/** As near as filters come to a cause. */
function filters(cause: Cause): Record<string, string> {
    const one = (names: string[]) => (names.length === 1 ? names[0]! : "");
    return { reason: cause.reason ?? "", type: one(cause.types), peer: one(cause.peers) };
}

/** Reading the causes goes through that many dead letters, so it is not done at every change. */
const CAUSES_OF = 5_000;
const CAUSES_PAUSE_MILLIS = 5_000;

function Causes() {
    const path = overview.value?.routes.causes;
    const found = useSignal<{ causes: Cause[]; complete: boolean } | null>(null);
    useFollow(path, changes.value.message, async (signal) => {
        found.value = await get<{ causes: Cause[]; complete: boolean }>(path!, { newest: CAUSES_OF }, signal);
    }, CAUSES_PAUSE_MILLIS);
    const { causes = [], complete = true } = found.value ?? {};
    if (!path || causes.length === 0) return null;
    const most = Math.max(...causes.map((cause) => cause.messages));
    return (
        <Panel title="By cause" note={!complete && `of the newest ${exact(CAUSES_OF)}`}>
            <ul class="causes">
                {causes.slice(0, 12).map((cause) => (
                    <li key={`${cause.reason} ${cause.cause}`}>
                        <b title={exact(cause.messages)}>{count(cause.messages)}</b>
                        <div>
                            <button type="button" class="link" onClick={() => refine(filters(cause))}>{cause.cause}</button>
                            <small>
                                {cause.reason && `${words(cause.reason)}, `}to {cause.peers.join(", ")}; {cause.types.join(", ")}; newest <Ago at={cause.newest} /> ago; <a href={href("messages", cause.example)}>an example</a>
                            </small>
                            <div class="bar" aria-hidden="true" style={{ width: `${Math.max(2, (cause.messages / most) * 100)}%` }}><i class="bad" style={{ flexGrow: 1 }} /></div>
                        </div>
                    </li>
                ))}
            </ul>
        </Panel>
    );
}
