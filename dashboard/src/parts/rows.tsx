// A table whose rows can be walked with the keyboard: arrows or j and k, Enter opens.
import type { ComponentChildren } from "preact";
import { go } from "../router";

export interface Column<T> {
    name: string;
    /** Hidden where there is little room. */
    wide?: boolean;
    end?: boolean;
    cell: (row: T) => ComponentChildren;
}

export function Rows<T>(props: {
    label: string;
    rows: T[];
    columns: Column<T>[];
    id: (row: T) => string;
    open?: (row: T) => string;
    current?: string;
}) {
    const classes = (column: Column<T>) => `${column.wide ? "wide" : ""} ${column.end ? "end" : ""}`;
    return (
        <div class="scroll">
            <table aria-label={props.label}>
                <thead>
                    <tr>{props.columns.map((column) => <th key={column.name} class={classes(column)} scope="col">{column.name}</th>)}</tr>
                </thead>
                <tbody>
                    {props.rows.map((row) => {
                        const id = props.id(row);
                        const address = props.open?.(row);
                        return (
                            <tr
                                key={id}
                                tabIndex={address ? 0 : undefined}
                                data-row={address ? id : undefined}
                                aria-current={props.current === id ? "true" : undefined}
                                onClick={() => address && go(address)}
                                onKeyDown={(event) => {
                                    if (event.key === "Enter" && address && event.target === event.currentTarget) go(address);
                                }}
                            >
                                {props.columns.map((column) => <td key={column.name} class={classes(column)}>{column.cell(row)}</td>)}
                            </tr>
                        );
                    })}
                </tbody>
            </table>
        </div>
    );
}

/** Moves the focus to the next or the previous row of the view. */
export function walk(step: 1 | -1): void {
    const rows = [...document.querySelectorAll<HTMLElement>("main [data-row]")];
    const at = rows.indexOf(document.activeElement as HTMLElement);
    const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1);
    rows[next]?.focus();
    rows[next]?.scrollIntoView({ block: "nearest" });
}
