// The editor that lies over a cell of a grid: Enter or leaving it stores, Escape cancels.
import { Box, Input, Portal } from "@chakra-ui/react";
import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import { Combobox } from "./Combobox";
import type { CellEdit } from "./Grid";

export function CellEditor<Row>(props: {
  name: string;
  edit: CellEdit<Row>;
  row: Row;
  box: DOMRect;
  /** The key that opened the editor: it replaces the value. */
  typed?: string;
  /** What the cell shows. */
  label: string;
  /** Which row this is, for the cache of its choices. */
  scope: string;
  onDone: (text: string) => void;
  onCancel: () => void;
}) {
  const { edit, row, box, onDone, onCancel } = props;
  const [text, setText] = useState(edit.kind !== "date" && props.typed !== undefined ? props.typed : edit.value(row));
  const isOver = useRef(false);
  const frame = useRef<HTMLDivElement>(null);
  const finish = (result: string | null) => {
    if (isOver.current) return;
    isOver.current = true;
    if (result === null) onCancel();
    else onDone(result);
  };
  useEffect(() => {
    const input = frame.current?.querySelector("input");
    input?.focus();
    if (props.typed === undefined && edit.kind !== "choice") input?.select();
    if (edit.kind === "choice") input?.click();
  }, [props.typed, edit.kind]);
  // the editor would stay behind when its cell scrolls away
  const cancel = useRef(onCancel);
  cancel.current = onCancel;
  useEffect(() => {
    const onWheel = () => cancel.current();
    const options = { passive: true, capture: true } as const;
    window.addEventListener("resize", onWheel);
    document.addEventListener("wheel", onWheel, options);
    return () => {
      window.removeEventListener("resize", onWheel);
      document.removeEventListener("wheel", onWheel, options);
    };
  }, []);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      finish(null);
    } else if ((event.key === "Enter" || event.key === "Tab") && edit.kind !== "choice") {
      event.preventDefault();
      finish(text.trim());
    }
  };
  const isChoice = edit.kind === "choice";
  const width = Math.max(box.width, isChoice ? 320 : edit.kind === "date" ? 150 : 100);
  return (
    <Portal>
      <Box
        ref={frame}
        position="fixed"
        zIndex="popover"
        style={{ left: Math.max(4, Math.min(box.left, window.innerWidth - width - 8)), top: box.top, width }}
        bg="bg"
        boxShadow="md"
        borderRadius="sm"
        onKeyDown={onKeyDown}
      >
        {isChoice ? (
          <Combobox
            name={props.name}
            search={(words) => edit.search?.(row, words) ?? Promise.resolve([])}
            text={props.label}
            autoFocus
            scope={props.scope}
            onPick={(option) => {
              if (option) finish(option.value);
            }}
            onClose={() => finish(null)}
          />
        ) : (
          <Input
            size="xs"
            height={`${box.height}px`}
            aria-label={props.name}
            type={edit.kind === "date" ? "date" : "text"}
            inputMode={edit.kind === "number" ? "decimal" : undefined}
            textAlign={edit.kind === "number" ? "right" : undefined}
            value={text}
            onChange={(event) => setText(event.target.value)}
            onBlur={() => finish(text.trim())}
          />
        )}
      </Box>
    </Portal>
  );
}
