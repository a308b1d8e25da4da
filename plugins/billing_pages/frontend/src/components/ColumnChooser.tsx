import { Box, Button, Checkbox, HStack, IconButton, Popover, Portal, Text } from "@chakra-ui/react";

type Column = { field: string; title: string; group?: string; isHidden?: boolean };

/** Which columns a grid shows, and in which order. onChange: their fields with commas, "" for the columns as they are at first. */
export function ColumnChooser({ columns, shown, onChange }: { columns: Column[]; shown: Column[]; onChange: (fields: string) => void }) {
  const fields = shown.map((column) => column.field);
  const choose = (next: string[]) => {
    const atFirst = columns.filter((column) => !column.isHidden).map((column) => column.field);
    onChange(next.join() === atFirst.join() ? "" : next.join());
  };
  const toggle = (field: string) => {
    if (fields.includes(field)) {
      if (fields.length > 1) choose(fields.filter((one) => one !== field));
      return;
    }
    // a column comes back where it stands at first: behind its nearest neighbour that is shown
    const order = columns.map((column) => column.field);
    const before = order.slice(0, order.indexOf(field)).filter((one) => fields.includes(one)).at(-1);
    const at = before === undefined ? 0 : fields.indexOf(before) + 1;
    choose([...fields.slice(0, at), field, ...fields.slice(at)]);
  };
  const move = (field: string, by: number) => {
    const at = fields.indexOf(field);
    const next = fields.filter((one) => one !== field);
    next.splice(Math.max(0, at + by), 0, field);
    choose(next);
  };
  const listed = [...shown, ...columns.filter((column) => !fields.includes(column.field))];
  return (
    <Popover.Root positioning={{ placement: "bottom-end" }} lazyMount unmountOnExit>
      <Popover.Trigger asChild>
        <Button size="xs" variant="outline">
          Columns
        </Button>
      </Popover.Trigger>
      <Portal>
        <Popover.Positioner>
          <Popover.Content width="320px">
            <Popover.Header>
              <HStack justify="space-between">
                <Text fontWeight="semibold">Columns</Text>
                <Button size="xs" variant="ghost" onClick={() => onChange("")}>
                  As at first
                </Button>
              </HStack>
            </Popover.Header>
            <Popover.Body maxH="60vh" overflow="auto">
              {listed.map((column) => {
                const at = fields.indexOf(column.field);
                return (
                  <HStack key={column.field} justify="space-between" py={0.5}>
                    <Checkbox.Root size="sm" checked={at >= 0} onCheckedChange={() => toggle(column.field)}>
                      <Checkbox.HiddenInput />
                      <Checkbox.Control />
                      <Checkbox.Label>
                        {column.title}
                        {column.group && (
                          <Text as="span" color="fg.muted" fontSize="xs">
                            {" "}
                            {column.group}
                          </Text>
                        )}
                      </Checkbox.Label>
                    </Checkbox.Root>
                    {at >= 0 && (
                      <Box whiteSpace="nowrap">
                        <IconButton size="2xs" variant="ghost" aria-label={`${column.title}: to the left`} disabled={at === 0} onClick={() => move(column.field, -1)}>
                          ↑
                        </IconButton>
                        <IconButton
                          size="2xs"
                          variant="ghost"
                          aria-label={`${column.title}: to the right`}
                          disabled={at === fields.length - 1}
                          onClick={() => move(column.field, 1)}
                        >
                          ↓
                        </IconButton>
                      </Box>
                    )}
                  </HStack>
                );
              })}
            </Popover.Body>
          </Popover.Content>
        </Popover.Positioner>
      </Portal>
    </Popover.Root>
  );
}
