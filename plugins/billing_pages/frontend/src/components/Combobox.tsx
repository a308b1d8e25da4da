import { Combobox as Parts, Portal, Spinner, Text, createListCollection } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";

/** Something to pick. unusable: why it cannot be picked. isFirst: it is offered before the others. */
export type Option = { value: string; label: string; detail?: string | null; unusable?: string | null };

/**
 * A field that finds its options on the server: search(text) is asked anew as the person types. name is read to screen readers and
 * is the cache's key. text: what stands in it at first; picked: what is picked at first.
 */
export function Combobox(props: {
  name: string;
  search: (text: string) => Promise<Option[]>;
  onPick: (option: Option | null) => void;
  text?: string;
  picked?: Option | null;
  placeholder?: string;
  autoFocus?: boolean;
  size?: "xs" | "sm";
  /** Called when the list closes. */
  onClose?: () => void;
  /** What else the options depend on. */
  scope?: string;
  isDisabled?: boolean;
}) {
  const [text, setText] = useState("");
  const [isOpen, setOpen] = useState(false);
  const { data, isFetching, error } = useQuery({
    queryKey: ["combobox", props.name, props.scope, text],
    queryFn: () => props.search(text),
    enabled: isOpen,
    placeholderData: (before) => before,
    staleTime: 5_000,
  });
  const [picked, setPicked] = useState(props.picked ?? null);
  const collection = useMemo(() => {
    const found = data ?? [];
    // Without it among the items the field would forget its words when it is left.
    const items = picked === null || found.some((o) => o.value === picked.value) ? found : [picked, ...found];
    return createListCollection({ items, itemToString: (o) => o.label, isItemDisabled: (o) => Boolean(o.unusable) });
  }, [data, picked]);
  return (
    <Parts.Root
      collection={collection}
      defaultValue={props.picked ? [props.picked.value] : []}
      defaultInputValue={props.text ?? props.picked?.label ?? ""}
      onInputValueChange={(e) => e.reason === "input-change" && setText(e.inputValue)}
      onValueChange={(e) => {
        setPicked(e.items[0] ?? null);
        props.onPick(e.items[0] ?? null);
      }}
      onOpenChange={(e) => {
        setOpen(e.open);
        if (!e.open) props.onClose?.();
      }}
      openOnClick
      disabled={props.isDisabled}
      autoFocus={props.autoFocus}
      selectionBehavior="replace"
      size={props.size ?? "sm"}
    >
      <Parts.Control>
        <Parts.Input aria-label={props.name} placeholder={props.placeholder ?? "Search ..."} />
        <Parts.IndicatorGroup>
          {isFetching && <Spinner size="xs" />}
          <Parts.ClearTrigger />
          <Parts.Trigger />
        </Parts.IndicatorGroup>
      </Parts.Control>
      <Portal>
        <Parts.Positioner>
          <Parts.Content>
            {error !== null && <Parts.Empty>{error.message}</Parts.Empty>}
            {error === null && <Parts.Empty>{isFetching ? "Searching ..." : "Nothing found"}</Parts.Empty>}
            {collection.items.map((option) => (
              <Parts.Item item={option} key={option.value}>
                <div>
                  <Text>{option.label}</Text>
                  {(option.detail || option.unusable) && (
                    <Text fontSize="xs" color="fg.muted">
                      {[option.detail, option.unusable && `cannot be used: ${option.unusable}`].filter(Boolean).join(" · ")}
                    </Text>
                  )}
                </div>
                <Parts.ItemIndicator />
              </Parts.Item>
            ))}
          </Parts.Content>
        </Parts.Positioner>
      </Portal>
    </Parts.Root>
  );
}
