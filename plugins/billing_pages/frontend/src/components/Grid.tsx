// The data grid of all pages: Tabulator for rows, columns and ranges, around it what a page needs of a grid. Rows come page by
// page from the server; sort, page and columns stand in the address.
import { Box, Flex, NativeSelect, Spinner, Text } from "@chakra-ui/react";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { type ReactNode, type RefObject, useCallback, useEffect, useImperativeHandle, useMemo, useRef, useState } from "react";
import type { CellComponent, ColumnDefinition, RowComponent } from "tabulator-tables";
import {
  FormatModule,
  FrozenColumnsModule,
  InteractionModule,
  KeybindingsModule,
  ResizeColumnsModule,
  ResizeTableModule,
  SelectRangeModule,
  Tabulator,
} from "tabulator-tables";
import "tabulator-tables/dist/css/tabulator_simple.min.css";
import "./Grid.css";
import { useNavigate } from "react-router";
import { useAddress } from "../lib/address";
import { formatCells, parseCells, placeCells } from "../lib/clipboard";
import { node } from "../lib/dom";
import { count } from "../lib/format";
import { ColumnChooser } from "./ColumnChooser";
import type { Option } from "./Combobox";
import { ErrorBox } from "./ErrorBox";
import { Help } from "./Help";
import { CellEditor } from "./CellEditor";
import { Pager } from "./Pager";
import { toast, toastError } from "./Toaster";

Tabulator.registerModule([
  FormatModule,
  FrozenColumnsModule,
  InteractionModule,
  KeybindingsModule,
  ResizeColumnsModule,
  ResizeTableModule,
  SelectRangeModule,
]);

/** How a cell is edited. Texts are plain values (2026-05-01, 12.5), an option's value for kind choice, "" to take a value back. */
export type CellEdit<Row> = {
  kind: "text" | "number" | "date" | "choice";
  /** What the editor starts with, and what is copied. */
  value: (row: Row) => string;
  /** Why this cell cannot be edited, or null when it can. */
  refuses?: (row: Row) => string | null;
  /** Of kind choice: what may be picked. */
  search?: (row: Row, text: string) => Promise<Option[]>;
};

export type GridColumn<Row> = {
  /** Unique; also the server's sort column, unless sortField names another. */
  field: string;
  title: string;
  /** Heading above neighbouring columns. */
  group?: string;
  width?: number;
  align?: "right";
  /** Stays in view while the others scroll, as long as it stands first; it has no group. */
  isFrozen?: boolean;
  /** Not shown until the reader chooses it. */
  isHidden?: boolean;
  isSortable?: boolean;
  sortField?: string;
  text: (row: Row) => string;
  /** Shown instead of the text when the cell is more than text. */
  node?: (row: Row) => Node;
  hint?: (row: Row) => string | null | undefined;
  edit?: CellEdit<Row>;
};

export type GridQuery = { offset: number; limit: number; sort: string };
export type Edit<Row> = { row: Row; field: string; text: string };
export type GridHandle<Row> = {
  /** Loads this page of rows again. */
  reload: () => Promise<unknown>;
  /** Shows rows anew that changed. */
  update: (rows: Row[]) => void;
  /** Nothing is selected any more. */
  clearSelection: () => void;
};

export type GridProps<Row> = {
  name: string;
  columns: GridColumn<Row>[];
  rowId: (row: Row) => string | number;
  /** What `load` needs besides sort and page: a change loads again from page 1. */
  query?: unknown;
  load: (query: GridQuery, signal: AbortSignal) => Promise<{ total: number; rows: Row[] }>;
  /** Stores edits of cells (one after an editor, many after a paste); gives back rows that changed. */
  onEdit?: (edits: Edit<Row>[]) => Promise<Row[] | undefined>;
  isSelectable?: boolean;
  onSelect?: (rows: Row[]) => void;
  /** Opens a row's details: a button in front of the row. */
  onOpen?: (row: Row) => void;
  openName?: string;
  /** Marks rows: a class name for the row's element. */
  rowClass?: (row: Row) => string | null;
  empty: ReactNode;
  addressPrefix?: string;
  sort?: string;
  handle?: RefObject<GridHandle<Row> | null>;
  tools?: ReactNode;
  /** Of the grid when the page does not fill the window. */
  height?: string;
};

type Wrapped<Row> = { id: string; row: Row };
type Editing<Row> = { row: Row; column: GridColumn<Row>; box: DOMRect; typed?: string };

const HEAD = "row-head";

export function Grid<Row>(props: GridProps<Row>) {
  const { name, columns, rowId, load, addressPrefix = "" } = props;
  const names = useMemo(
    () => ({
      sort: `${addressPrefix}sort`,
      page: `${addressPrefix}page`,
      size: `${addressPrefix}size`,
      columns: `${addressPrefix}columns`,
    }),
    [addressPrefix],
  );
  const [address, change] = useAddress({
    [names.sort]: props.sort ?? "",
    [names.page]: "1",
    [names.size]: "100",
    [names.columns]: "",
  });
  const sort = address[names.sort] ?? "";
  const page = Math.max(1, Number.parseInt(address[names.page] ?? "1", 10) || 1);
  const size = [50, 100, 250, 500].includes(Number(address[names.size])) ? Number(address[names.size]) : 100;
  const chosen = address[names.columns] ?? "";

  const queryText = JSON.stringify(props.query ?? null);
  const lastQuery = useRef(queryText);
  useEffect(() => {
    if (lastQuery.current === queryText) return;
    lastQuery.current = queryText;
    change({ [names.page]: "1" });
    setSelected(new Map());
  }, [queryText, change, names]);

  const { data, error, isFetching, isPlaceholderData, refetch } = useQuery({
    queryKey: ["grid", name, queryText, sort, page, size],
    queryFn: ({ signal }) => load({ offset: (page - 1) * size, limit: size, sort }, signal),
    placeholderData: keepPreviousData,
  });

  const [selected, setSelected] = useState<Map<string, Row>>(new Map());
  const [editing, setEditing] = useState<Editing<Row> | null>(null);
  const [said, say] = useState("");
  const holder = useRef<HTMLDivElement>(null);
  const table = useRef<Tabulator | null>(null);
  const [built, setBuilt] = useState(0);
  const isBuilt = useRef(false);
  // Tabulator's callbacks live longer than a render: they read what is true now from here
  const now = useRef({ props, sort, selected, page, size });
  now.current = { props, sort, selected, page, size };

  const shown = useMemo(() => shownColumns(columns, chosen), [columns, chosen]);
  const hasHead = Boolean(props.isSelectable || props.onOpen);
  // what changes the table's own make-up
  const abilities = `${Boolean(props.isSelectable)} ${Boolean(props.onOpen)} ${Boolean(props.onEdit)}`;

  const { onSelect } = props;
  useEffect(() => onSelect?.([...selected.values()]), [selected, onSelect]);

  const store = useCallback(async (edits: Edit<Row>[]) => {
    const { onEdit } = now.current.props;
    if (!onEdit || edits.length === 0) return;
    try {
      const rows = await onEdit(edits);
      if (rows) showAgain(table.current, rows, now.current.props.rowId);
    } catch (problem) {
      toastError(problem, "The change was not stored");
    }
    requestAnimationFrame(() => {
      if (document.activeElement === document.body) holder.current?.querySelector<HTMLElement>(".tabulator-tableholder")?.focus();
    });
  }, []);

  const startEdit = useCallback((cell: CellComponent | undefined, typed?: string) => {
    if (!cell) return;
    const column = now.current.props.columns.find((one) => one.field === cell.getField());
    const row = (cell.getData() as Wrapped<Row>).row;
    if (!column) return;
    const refusal = column.edit && now.current.props.onEdit ? (column.edit.refuses?.(row) ?? null) : `${column.title} cannot be edited.`;
    if (refusal !== null || !column.edit) {
      say(refusal ?? "");
      if (column.edit) toast("info", "This cell cannot be edited", refusal ?? undefined);
      return;
    }
    setEditing({ row, column, box: cell.getElement().getBoundingClientRect(), typed });
  }, []);

  // one table per set of columns
  useEffect(() => {
    const element = holder.current;
    if (element === null) return;
    const body = node("div");
    element.append(body);
    isBuilt.current = false;
    const build = new Tabulator(body, {
      height: "100%",
      data: [],
      index: "id",
      layout: "fitData",
      rowHeight: 34,
      nestedFieldSeparator: false,
      selectableRange: 1,
      selectableRangeColumns: false,
      selectableRangeRows: hasHead,
      selectableRangeAutoFocus: false,
      columnDefaults: { resizable: "header" },
      columns: definitions(shown, hasHead, now, setSelected, change, names.sort),
      rowFormatter: (row: RowComponent) => {
        const wrapped = row.getData() as Wrapped<Row>;
        const element = row.getElement();
        const { page, size, props, selected } = now.current;
        const position = row.getPosition();
        if (typeof position === "number") element.setAttribute("aria-rowindex", String((page - 1) * size + position + 1));
        element.setAttribute("aria-selected", String(selected.has(wrapped.id)));
        const mark = props.rowClass?.(wrapped.row);
        for (const old of [...element.classList].filter((one) => one.startsWith("row-is-"))) element.classList.remove(old);
        if (mark) element.classList.add(`row-is-${mark}`);
      },
    } as never);
    const focusCell = () => {
      const cell = activeCell(build);
      if (cell && body.contains(document.activeElement) && !isTyping(document.activeElement)) {
        const target = cell.getElement();
        if (target.contains(document.activeElement)) return;
        target.tabIndex = -1;
        target.focus({ preventScroll: true });
      }
    };
    build.on("tableBuilt", () => {
      isBuilt.current = true;
      table.current = build;
      nameParts(body, now.current.props.name);
      setBuilt((n) => n + 1);
    });
    let corners: (CellComponent | undefined)[] = [];
    const follow = () => {
      focusCell();
      const before = corners;
      corners = cornersOfRange(build);
      const moved = corners.find((corner, index) => corner !== before[index]);
      if (moved && body.contains(document.activeElement)) bringIntoView(body, moved.getElement());
    };
    build.on("rangeChanged" as never, (() => requestAnimationFrame(follow)) as never);
    build.on("scrollHorizontal", () => showGroupTitles(body));
    build.on("cellDblClick", (_event: unknown, cell: CellComponent) => startEdit(cell));
    const onFocus = (event: FocusEvent) => {
      if (event.target instanceof HTMLElement && event.target.classList.contains("tabulator-tableholder")) focusCell();
    };
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event.target)) return;
      const inRows = event.target instanceof Element && event.target.closest(".tabulator-tableholder") !== null;
      if (!inRows) return;
      const cell = activeCell(build);
      const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
      if (event.key === "Tab") {
        // Tab leaves the grid, as in every grid of the web; arrows move inside it
        event.stopPropagation();
        return;
      }
      if (event.key === "Enter" || event.key === "F2") {
        if (event.target instanceof HTMLElement && event.target.closest("button, a, input")) {
          event.stopPropagation();
          return;
        }
        event.preventDefault();
        event.stopPropagation();
        const inside = cell?.getElement().querySelector<HTMLElement>("a[href], button");
        if (event.key === "Enter" && inside && !columnOf(now.current.props.columns, cell)?.edit) inside.click();
        else startEdit(cell);
      } else if (event.key === " " && isPlain && now.current.props.isSelectable && cell) {
        event.preventDefault();
        const wrapped = cell.getData() as Wrapped<Row>;
        setSelected((before) => toggled(before, wrapped));
      } else if (event.key === "Delete" && isPlain) {
        event.preventDefault();
        const cells = rangeCells<Row>(build, now.current.props.columns).flat();
        void store(cells.filter(({ row, column }) => mayEdit(row, column, now.current.props)).map(({ row, column }) => ({ row, field: column.field, text: "" })));
      } else if (event.key.length === 1 && event.key !== " " && isPlain && cell && columnOf(now.current.props.columns, cell)?.edit) {
        event.preventDefault();
        startEdit(cell, event.key);
      }
    };
    const onCopy = (event: ClipboardEvent) => {
      if (isTyping(event.target)) return;
      const cells = rangeCells<Row>(build, now.current.props.columns);
      if (cells.length === 0) return;
      event.preventDefault();
      event.clipboardData?.setData("text/plain", formatCells(cells.map((line) => line.map(({ row, column }) => plainText(row, column)))));
      const total = cells.length * (cells[0]?.length ?? 0);
      say(`${total} ${total === 1 ? "cell" : "cells"} copied`);
    };
    const onPaste = (event: ClipboardEvent) => {
      if (isTyping(event.target) || !now.current.props.onEdit) return;
      const range = rectangle(build);
      if (range === null) return;
      event.preventDefault();
      const rows = build.getRows("active");
      const fields = visibleFields(build);
      const placed = placeCells(parseCells(event.clipboardData?.getData("text/plain") ?? ""), range, rows.length, fields.length);
      const edits: Edit<Row>[] = [];
      let refused = 0;
      for (const { row: y, column: x, text } of placed) {
        const row = (rows[y]?.getData() as Wrapped<Row>).row;
        const column = now.current.props.columns.find((one) => one.field === fields[x]);
        if (column && mayEdit(row, column, now.current.props)) edits.push({ row, field: column.field, text: text.trim() });
        else refused++;
      }
      if (refused > 0) toast("warning", "Some cells cannot be edited", `${refused} of ${placed.length} pasted cells were left as they are.`);
      void store(edits);
    };
    // a second tap on the active cell edits it on a tablet
    let tapped: string | null = null;
    build.on("cellClick", (event: unknown, cell: CellComponent) => {
      const isTouch = (event as PointerEvent).pointerType === "touch";
      const key = `${(cell.getData() as Wrapped<Row>).id} ${cell.getField()}`;
      if (isTouch && tapped === key && columnOf(now.current.props.columns, cell)?.edit) startEdit(cell);
      tapped = key;
      requestAnimationFrame(focusCell);
    });
    body.addEventListener("keydown", onKey, true);
    body.addEventListener("focusin", onFocus);
    element.addEventListener("copy", onCopy);
    element.addEventListener("paste", onPaste);
    return () => {
      element.removeEventListener("copy", onCopy);
      element.removeEventListener("paste", onPaste);
      table.current = null;
      build.destroy();
      body.remove();
    };
    // biome-ignore lint: abilities are read through `now`
  }, [shown, hasHead, abilities, change, names, startEdit, store]);

  // rows into the table
  const place = useRef("");
  useEffect(() => {
    const build = table.current;
    if (build === null || built === 0 || data === undefined) return;
    const wrapped = data.rows.map((row) => ({ id: String(rowId(row)), row }));
    const here = `${queryText} ${sort} ${page} ${size} ${built}`;
    const isSamePlace = place.current === here;
    place.current = here;
    const before = isSamePlace ? keepRange(build) : null;
    const hadFocus = holder.current?.contains(document.activeElement) && !isTyping(document.activeElement);
    const done = isSamePlace ? build.replaceData(wrapped as never) : build.setData(wrapped as never);
    void done.then(() => {
      before?.();
      // the focused cell went with its row
      if (hadFocus && document.activeElement === document.body) holder.current?.querySelector<HTMLElement>(".tabulator-tableholder")?.focus();
    });
    const grid = holder.current?.querySelector(".tabulator");
    grid?.setAttribute("aria-rowcount", String(data.total + 1));
    grid?.setAttribute("aria-colcount", String(visibleFields(build).length + (hasHead ? 1 : 0)));
  }, [data, built, rowId, queryText, sort, page, size, hasHead]);

  // marks of the header and of selected rows
  useEffect(() => {
    if (built === 0 || table.current === null) return;
    markColumns(table.current, columns, sort);
  }, [sort, columns, built]);
  useEffect(() => {
    if (built === 0 || !hasHead) return;
    for (const box of holder.current?.querySelectorAll<HTMLInputElement>("input[data-row]") ?? []) {
      box.checked = selected.has(box.dataset.row ?? "");
      box.closest(".tabulator-row")?.setAttribute("aria-selected", String(box.checked));
      box.closest(".tabulator-row")?.classList.toggle("grid-selected", box.checked);
    }
    const all = holder.current?.querySelector<HTMLInputElement>("input[data-all]");
    if (all && data) {
      const here = data.rows.filter((row) => selected.has(String(rowId(row)))).length;
      all.checked = here > 0 && here === data.rows.length;
      all.indeterminate = here > 0 && here < data.rows.length;
    }
  }, [selected, data, built, hasHead, rowId]);

  // links of cells stay inside the pages
  const navigate = useNavigate();
  useEffect(() => {
    const follow = (event: MouseEvent) => {
      const link = event.target instanceof Element ? event.target.closest<HTMLAnchorElement>("a[data-inside]") : null;
      if (!link || event.ctrlKey || event.metaKey || event.button !== 0) return;
      event.preventDefault();
      navigate(`/${link.getAttribute("href")?.replace(/^\//, "")}`);
    };
    const element = holder.current;
    element?.addEventListener("click", follow);
    return () => element?.removeEventListener("click", follow);
  }, [navigate]);

  const pageRows = useRef<Row[]>([]);
  pageRows.current = data?.rows ?? [];
  useEffect(() => {
    const all = (event: Event) => {
      if (!(event.target instanceof HTMLInputElement) || event.target.dataset.all === undefined) return;
      const isOn = event.target.checked;
      setSelected((before) => {
        const next = new Map(before);
        for (const row of pageRows.current) {
          const id = String(now.current.props.rowId(row));
          if (isOn) next.set(id, row);
          else next.delete(id);
        }
        return next;
      });
    };
    const element = holder.current;
    element?.addEventListener("change", all);
    return () => element?.removeEventListener("change", all);
  }, []);

  useImperativeHandle(
    props.handle,
    () => ({
      reload: refetch,
      update: (rows: Row[]) => showAgain(table.current, rows, rowId),
      clearSelection: () => setSelected(new Map()),
    }),
    [refetch, rowId],
  );

  const closeEditor = useCallback(() => {
    setEditing(null);
    holder.current?.querySelector<HTMLElement>(".tabulator-tableholder")?.focus();
  }, []);

  const total = data?.total ?? 0;
  const isEmpty = data !== undefined && !isPlaceholderData && total === 0;
  return (
    <Flex direction="column" flex="1" minH={props.height ? undefined : "240px"} height={props.height} borderWidth={1} borderRadius="md" overflow="hidden">
      <Flex align="center" gap={2} px={2} py={1} borderBottomWidth={1} bg="bg.subtle" flexShrink={0} wrap="wrap" minH="38px">
        <Text fontSize="sm" role="status" fontVariantNumeric="tabular-nums">
          {data === undefined ? " " : `${count(total)} ${total === 1 ? "row" : "rows"}`}
          {selected.size > 0 && `, ${count(selected.size)} selected`}
        </Text>
        {isFetching && <Spinner size="xs" aria-label="Loading" />}
        {props.tools}
        <Box flex="1" />
        {props.onEdit && (
          <Help label="Keys of this grid">
            Arrows move; with Shift they select a range. Enter, F2 or typing edits a cell, Escape cancels. Ctrl+C and Ctrl+V copy and paste, also from and
            to spreadsheets. Delete takes a typed value back. {props.isSelectable && "Space selects the row. "}On a tablet, tap a cell twice.
          </Help>
        )}
        <ColumnChooser columns={columns} shown={shown} onChange={(fields) => change({ [names.columns]: fields })} />
      </Flex>
      {error !== null && (
        <Box p={3}>
          <ErrorBox error={error} what={`${name} could not be loaded`} onRetry={() => refetch()} />
        </Box>
      )}
      <Box position="relative" flex="1" minH={0}>
        <Box ref={holder} position="absolute" inset={0} className="grid" visibility={isEmpty ? "hidden" : undefined} opacity={isPlaceholderData ? 0.6 : 1} />
        {isEmpty && (
          <Box position="absolute" inset={0} overflow="auto">
            {props.empty}
          </Box>
        )}
        {data === undefined && error === null && <Skeleton />}
      </Box>
      {total > 0 && (
        <Flex align="center" gap={3} px={2} py={1} borderTopWidth={1} bg="bg.subtle" flexShrink={0} wrap="wrap">
          <Pager page={page} size={size} total={total} onPage={(next) => change({ [names.page]: String(next) })} />
          <Box flex="1" />
          <NativeSelect.Root size="xs" width="8rem">
            <NativeSelect.Field
              aria-label="Rows per page"
              value={size}
              onChange={(event) => change({ [names.size]: event.target.value, [names.page]: "1" })}
            >
              {[50, 100, 250, 500].map((rows) => (
                <option key={rows} value={rows}>
                  {rows} per page
                </option>
              ))}
            </NativeSelect.Field>
            <NativeSelect.Indicator />
          </NativeSelect.Root>
        </Flex>
      )}
      <div className="sr-only" aria-live="polite">
        {said}
      </div>
      {editing?.column.edit && (
        <CellEditor
          key={`${rowId(editing.row)} ${editing.column.field}`}
          name={editing.column.title}
          edit={editing.column.edit}
          row={editing.row}
          box={editing.box}
          typed={editing.typed}
          label={editing.column.text(editing.row)}
          scope={String(rowId(editing.row))}
          onCancel={closeEditor}
          onDone={(text) => {
            const { row, column } = editing;
            closeEditor();
            if (text !== column.edit?.value(row)) void store([{ row, field: column.field, text }]);
          }}
        />
      )}
    </Flex>
  );
}

function Skeleton() {
  return (
    <Box position="absolute" inset={0} p={3} aria-hidden bg="bg">
      {Array.from({ length: 10 }, (_, i) => (
        // biome-ignore lint: rows of a skeleton have no identity
        <Box key={i} height="20px" mb={3} borderRadius="sm" bg="bg.emphasized" opacity={0.9 - i * 0.08} className="grid-skeleton" />
      ))}
    </Box>
  );
}

/** The columns to show, in order: those that the address names, or all that are not hidden at first. */
export function shownColumns<Row>(columns: GridColumn<Row>[], chosen: string): GridColumn<Row>[] {
  const named = chosen
    .split(",")
    .map((field) => columns.find((column) => column.field === field))
    .filter((column) => column !== undefined);
  return named.length > 0 ? named : columns.filter((column) => !column.isHidden);
}

type Now<Row> = RefObject<{ props: GridProps<Row>; sort: string; selected: Map<string, Row> }>;

function definitions<Row>(
  shown: GridColumn<Row>[],
  hasHead: boolean,
  now: Now<Row>,
  setSelected: (change: (before: Map<string, Row>) => Map<string, Row>) => void,
  change: (state: Record<string, string>) => void,
  sortName: string,
): ColumnDefinition[] {
  const result: ColumnDefinition[] = [];
  if (hasHead) result.push(rowHead(now, setSelected));
  let group: { title: string; columns: ColumnDefinition[] } | undefined;
  let isLeft = true;
  for (const column of shown) {
    // behind a column that scrolls, Tabulator would hold it on the right
    isLeft = isLeft && column.isFrozen === true;
    const definition = {
      title: column.title,
      field: column.field,
      frozen: isLeft,
      width: column.width ?? 140,
      minWidth: 60,
      hozAlign: column.align,
      cssClass: column.edit && now.current.props.onEdit ? "grid-editable" : undefined,
      titleFormatter: () => titleNode(column, () => {
        const field = column.sortField ?? column.field;
        change({ [sortName]: now.current.sort === field ? `-${field}` : field });
      }),
      formatter: (cell: CellComponent) => {
        const row = (cell.getData() as Wrapped<Row>).row;
        const hint = column.hint?.(row);
        const element = cell.getElement();
        if (hint) element.title = hint;
        else element.removeAttribute("title");
        if (column.edit && now.current.props.onEdit) {
          const refusal = column.edit.refuses?.(row) ?? null;
          element.setAttribute("aria-readonly", String(refusal !== null));
          element.classList.toggle("grid-locked", refusal !== null);
          if (refusal && !hint) element.title = refusal;
        } else {
          element.setAttribute("aria-readonly", "true");
        }
        return column.node?.(row) ?? document.createTextNode(column.text(row));
      },
    } as unknown as ColumnDefinition;
    if (column.group === undefined) {
      group = undefined;
      result.push(definition);
    } else {
      if (group?.title !== column.group) {
        group = { title: column.group, columns: [] };
        const { title } = group;
        result.push({ ...group, columns: group.columns, titleFormatter: () => node("span", { class: "grid-group" }, title) } as unknown as ColumnDefinition);
      }
      group.columns.push(definition);
    }
  }
  return result;
}

function rowHead<Row>(now: Now<Row>, setSelected: (change: (before: Map<string, Row>) => Map<string, Row>) => void): ColumnDefinition {
  const { isSelectable, onOpen, openName = "Open" } = now.current.props;
  return {
    title: "",
    field: HEAD,
    frozen: true,
    resizable: false,
    width: (isSelectable ? 36 : 0) + (onOpen ? 62 : 0) - (isSelectable && onOpen ? 10 : 0),
    titleFormatter: () =>
      isSelectable
        ? node("input", { type: "checkbox", "data-all": true, "aria-label": "Select all rows of this page" })
        : node("span", { class: "sr-only" }, openName),
    formatter: (cell: CellComponent) => {
      const wrapped = cell.getData() as Wrapped<Row>;
      const parts = node("span", { class: "grid-head" });
      if (isSelectable) {
        const box = node("input", { type: "checkbox", "data-row": wrapped.id, "aria-label": "Select row", tabindex: "-1" });
        box.checked = now.current.selected.has(wrapped.id);
        box.addEventListener("change", () => setSelected((before) => toggled(before, wrapped)));
        parts.append(box);
      }
      if (onOpen) {
        const open = node("button", { type: "button", class: "grid-open", tabindex: "-1" }, openName);
        open.addEventListener("click", () => now.current.props.onOpen?.(wrapped.row));
        parts.append(open);
      }
      return parts;
    },
  } as unknown as ColumnDefinition;
}

function titleNode<Row>(column: GridColumn<Row>, onSort: () => void): HTMLElement {
  if (!column.isSortable) return node("span", { class: "grid-title" }, column.title);
  return node(
    "button",
    { type: "button", class: "grid-title grid-sort", "data-sort": column.sortField ?? column.field, onclick: onSort },
    column.title,
    node("span", { class: "grid-arrow", "aria-hidden": "true" }),
  );
}

/** Names of the columns for screen readers, and which of them sorts. */
function markColumns<Row>(table: Tabulator, columns: GridColumn<Row>[], sort: string): void {
  for (const component of table.getColumns()) {
    const column = columns.find((one) => one.field === component.getField());
    if (!column) continue;
    const field = column.sortField ?? column.field;
    const state = sort === field ? "ascending" : sort === `-${field}` ? "descending" : "none";
    const element = component.getElement();
    // both groups may have a "Quantity"
    element.setAttribute("aria-label", column.group === undefined ? column.title : `${column.group}: ${column.title}`);
    if (column.isSortable) element.setAttribute("aria-sort", state);
    else element.removeAttribute("aria-sort");
    const arrow = element.querySelector(".grid-arrow");
    if (arrow) arrow.textContent = state === "ascending" ? "▲" : state === "descending" ? "▼" : "";
  }
}

/** Tabulator gives the roles; names, and the wrappers that are no part of a grid, are mended here. */
function nameParts(body: HTMLElement, name: string): void {
  body.setAttribute("aria-label", name);
  body.setAttribute("aria-multiselectable", "true");
  body.removeAttribute("aria-owns");
  for (const group of body.querySelectorAll('[role="columngroup"]')) {
    group.setAttribute("role", "presentation");
    group.removeAttribute("aria-title");
    group.removeAttribute("aria-sort");
  }
  // the rows' group is what takes the focus
  body.querySelector(".tabulator-tableholder")?.setAttribute("role", "rowgroup");
  body.querySelector(".tabulator-table")?.setAttribute("role", "presentation");
  const overlay = body.querySelector(".tabulator-range-overlay");
  overlay?.setAttribute("aria-hidden", "true");
  const head = body.querySelector(".tabulator-header");
  head?.removeAttribute("tabindex");
}

/** Headings of groups stay in view while their columns scroll. */
function showGroupTitles(body: HTMLElement): void {
  const frozen = [...body.querySelectorAll(".tabulator-header .tabulator-frozen")].map((one) => one.getBoundingClientRect().right);
  const edge = Math.max(body.getBoundingClientRect().left, ...frozen);
  for (const title of body.querySelectorAll<HTMLElement>(".grid-group")) {
    title.style.transform = "";
    const hidden = edge - (title.closest(".tabulator-col-group")?.getBoundingClientRect().left ?? edge);
    if (hidden > 0) title.style.transform = `translateX(${hidden}px)`;
  }
}

function toggled<Row>(before: Map<string, Row>, wrapped: Wrapped<Row>): Map<string, Row> {
  const next = new Map(before);
  if (!next.delete(wrapped.id)) next.set(wrapped.id, wrapped.row);
  return next;
}

function showAgain<Row>(table: Tabulator | null, rows: Row[], rowId: (row: Row) => string | number): void {
  for (const row of rows) {
    const component = table?.getRows().find((one) => (one.getData() as Wrapped<Row>).id === String(rowId(row)));
    if (!component) continue;
    Object.assign(component.getData(), { row });
    component.reformat();
    for (const cell of component.getCells()) cell.getElement().classList.add("grid-changed");
  }
}

function activeCell(table: Tabulator): CellComponent | undefined {
  return cornersOfRange(table)[0];
}

/** The first and the last cell of the range. */
function cornersOfRange(table: Tabulator): (CellComponent | undefined)[] {
  // getBounds gives Tabulator's inner cells
  type Inner = { getComponent(): CellComponent } | undefined;
  const range = table.getRanges()[0] as unknown as { getBounds(): { start?: Inner; end?: Inner } } | undefined;
  const bounds = range?.getBounds();
  return [bounds?.start?.getComponent(), bounds?.end?.getComponent()];
}

/** Scroll sideways to a cell. Tabulator itself measures a column from its group, and knows of no frozen column. */
function bringIntoView(body: HTMLElement, cell: HTMLElement): void {
  const holder = body.querySelector<HTMLElement>(".tabulator-tableholder");
  if (!holder || cell.classList.contains("tabulator-frozen")) return;
  const frozen = [...body.querySelectorAll(".tabulator-header .tabulator-frozen")].map((one) => one.getBoundingClientRect().right);
  const left = Math.max(holder.getBoundingClientRect().left, ...frozen);
  const right = holder.getBoundingClientRect().left + holder.clientWidth;
  const at = cell.getBoundingClientRect();
  if (at.left < left) holder.scrollLeft -= left - at.left;
  else if (at.right > right) holder.scrollLeft += Math.min(at.right - right, at.left - left);
}

function columnOf<Row>(columns: GridColumn<Row>[], cell: CellComponent | undefined): GridColumn<Row> | undefined {
  return cell && columns.find((column) => column.field === cell.getField());
}

function visibleFields(table: Tabulator): string[] {
  return table
    .getColumns()
    .map((column) => column.getField())
    .filter((field) => field !== HEAD);
}

/** The selected range as positions among the rows of this page and the columns without the row's head. */
function rectangle(table: Tabulator) {
  const range = table.getRanges()[0] as unknown as
    | { getTopEdge(): number; getBottomEdge(): number; getLeftEdge(): number; getRightEdge(): number }
    | undefined;
  if (!range) return null;
  const head = table.getColumns().some((column) => column.getField() === HEAD) ? 1 : 0;
  return {
    top: range.getTopEdge(),
    bottom: range.getBottomEdge(),
    left: Math.max(0, range.getLeftEdge() - head),
    right: range.getRightEdge() - head,
  };
}

function rangeCells<Row>(table: Tabulator, columns: GridColumn<Row>[]): { row: Row; column: GridColumn<Row> }[][] {
  const range = rectangle(table);
  if (range === null) return [];
  const fields = visibleFields(table).slice(range.left, range.right + 1);
  const inRange = fields.map((field) => columns.find((one) => one.field === field)).filter((column) => column !== undefined);
  return table
    .getRows("active")
    .slice(range.top, range.bottom + 1)
    .map((row) => inRange.map((column) => ({ row: (row.getData() as Wrapped<Row>).row, column })));
}

function plainText<Row>(row: Row, column: GridColumn<Row>): string {
  return column.edit && column.edit.kind !== "choice" ? column.edit.value(row) : column.text(row);
}

function mayEdit<Row>(row: Row, column: GridColumn<Row>, props: GridProps<Row>): boolean {
  return Boolean(props.onEdit && column.edit && (column.edit.refuses?.(row) ?? null) === null);
}

/** Puts the active cell back where it was after the same rows were loaded again. */
function keepRange(table: Tabulator): (() => void) | null {
  const cell = activeCell(table);
  if (!cell) return null;
  const id = (cell.getData() as Wrapped<unknown>).id;
  const field = cell.getField();
  return () => {
    const found = table
      .getRows()
      .find((row) => (row.getData() as Wrapped<unknown>).id === id)
      ?.getCell(field);
    const range = table.getRanges()[0] as unknown as { setBounds(start: CellComponent, end: CellComponent): void } | undefined;
    if (found && range) range.setBounds(found, found);
  };
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.matches("input:not([type=checkbox]), textarea, select") || target.isContentEditable);
}
