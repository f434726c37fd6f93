// Calls of this address and no other. An error is the sentence of the problem document.

export class Problem extends Error {
    constructor(readonly status: number, detail: string) {
        super(detail);
    }
}

export type Query = Record<string, string | number | undefined>;

function address(path: string, query: Query): string {
    const asked = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
        if (value !== undefined && value !== "") asked.set(name, String(value));
    }
    const text = asked.toString();
    return text ? `${path}?${text}` : path;
}

async function answer<T>(response: Response): Promise<T> {
    // The browser is asked for the token by the page's own address.
    if (response.status === 401) location.reload();
    if (response.ok) return (await response.json()) as T;
    const body = await response.json().catch(() => null);
    throw new Problem(response.status, body?.detail ?? response.statusText);
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
    return answer(await fetch(address(path, query), { signal: signal ?? null }));
}

export async function post<T>(path: string, body: unknown = {}): Promise<T> {
    const headers = { "content-type": "application/json" };
    return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

export function stream(path: string, query: Query): EventSource {
    return new EventSource(address(path, query));
}
