// What the interfaces answer, as far as the page reads it.

export interface Entry {
    seq: string;
    timestamp: string;
    event: string;
    level: "debug" | "info" | "warning" | "error";
    actor: string;
    resource: string;
    namespace: string;
    details: Record<string, unknown> | null;
}

export interface Link {
    connected: boolean;
    server: string | null;
    transport: string | null;
    session_id: string | null;
    since: string | null;
    last_error: string | null;
    circuit: string;
    circuit_until: string | null;
    latency_ms: number | null;
    /** What a person has paused: deliveries to one, or without a name all of them. */
    paused?: Paused[];
}

export interface Paused {
    to: string | null;
    by: string;
    since: string;
}

export interface Peer {
    peer: string;
    messages: Record<string, number>;
    total: number;
}

export interface Overview {
    program: "loki" | "openclaw-server";
    version: string;
    agent_id: string;
    namespace?: string;
    started_at: string;
    link?: Link;
    messages: { direction: string; status: string; count: number }[];
    /** `null`: it cannot be read now. */
    unfinished: { peers: Peer[]; complete: boolean } | null;
    oldest_waiting_at: string | null;
    tasks: Record<string, number>;
    /** A server: where open tasks are. */
    namespaces?: string[];
    /** A bridge: its tasks by who does them. */
    tasks_by_agent?: { agent: string; tasks: Record<string, number> }[];
    agents?: Record<string, number>;
    storage: { journal_bytes: number; rows_behind: number } | null;
    /** What cannot be read of the store, a sentence each. */
    damage: string[];
    routes: Partial<Record<Route, string>>;
}

export type Route =
    | "messages" | "audit" | "tasks" | "agents" | "capabilities" | "retry" | "prune" | "causes"
    | "pause" | "resume" | "disconnect" | "reconnect" | "cancel" | "explain";

export interface Row {
    message_id: string;
    direction: string;
    message_type: string;
    peer: string;
    namespace: string;
    status: string;
    reason: string | null;
    attempts: number;
    next_attempt_at: string | null;
    created_at: string;
    updated_at: string;
    size_bytes: number;
    sealed: boolean;
    maybe_delivered: boolean;
    receipt?: { status?: string; error?: unknown } | null;
}

export interface Step {
    at: string;
    event: string;
    actor: string;
    status?: string;
    reason?: string | null;
    attempts?: number;
    next_attempt_at?: string | null;
    maybe_delivered?: boolean;
    error?: string | null;
    retry_of?: string;
}

export interface Detail extends Row {
    payload: unknown;
    history: Step[];
}

export interface Task {
    task_id: string;
    namespace?: string;
    task_type?: string;
    type?: string;
    description: string;
    priority: string;
    status: string;
    pending_reason?: string | null;
    agent_id?: string | null;
    assigned_agent?: string | null;
    agent?: string | null;
    attempt: number;
    progress: number | null;
    message?: string | null;
    result?: unknown;
    error?: { code?: string; message?: string } | null;
    created_at: string | number;
    updated_at?: string;
    started_at?: number | null;
    finished_at?: number | null;
    history?: { at: string; status: string; attempt: number; agent_id: string | null; detail: string | null; late?: boolean }[];
}

export interface Agent {
    agent_id: string;
    namespace: string;
    name: string | null;
    agent_types: string[];
    capabilities: string[];
    supported_models: string[];
    status: string;
    activity: string | null;
    running: { task_id: string; attempt: number; status: string }[];
    max_concurrent_tasks: number;
    last_heartbeat: string | null;
    session: { session_id: string; opened_at: string } | null;
    /** Who holds its mailbox. */
    paused: { by: string; since: string } | null;
}
