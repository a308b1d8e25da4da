import { Badge, Box, Button, Checkbox, Flex, HStack, Input, NativeSelect, Table, Text } from "@chakra-ui/react";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { Loading } from "../../components/Loading";
import { PageSteps } from "../../components/PageSteps";
import { RefuseAgreement } from "../../components/RefuseAgreement";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { get } from "../../lib/api";
import { counted, date, money, price, quantity } from "../../lib/format";
import { linesLink } from "../../lib/links";
import type { Model } from "../../models";
import { isLeftOut, type LeftOut } from "./leaveOut";
import { ACTIONS, ITEM_STATES, type Action, type ItemState } from "./state";

type Item = Model<"PlanItem">;

export const PER_PAGE = 50;
export type ItemAddress = { q: string; company: string; action: string; state: string; sort: string; page: string };

/** What the plan does, thing by thing: before → after, with what differs marked. Items can be left out while nobody has approved. */
export function Items({ planId, address, onChange, leftOut, onLeave, canChoose, companyName }: {
  planId: number;
  address: ItemAddress;
  onChange: (change: Partial<ItemAddress>) => void;
  leftOut: LeftOut;
  onLeave: (items: readonly Item[], isOut: boolean) => void;
  canChoose: boolean;
  companyName: string | undefined;
}) {
  const page = Math.max(1, Number(address.page) || 1);
  const { q, action, state, sort } = address;
  const params = { q, action, state, sort, company_id: address.company, offset: (page - 1) * PER_PAGE, limit: PER_PAGE };
  const items = useQuery({
    queryKey: ["plan-items", planId, params],
    queryFn: ({ signal }) => get<Model<"PlanItemPage">>(`plans/${planId}/items`, params, signal),
    placeholderData: keepPreviousData,
  });
  const filter = (change: Partial<ItemAddress>) => onChange({ ...change, page: "1" });
  const pages = Math.max(1, Math.ceil((items.data?.total ?? 0) / PER_PAGE));

  return (
    <Box>
      <Flex gap="2" mb="2" wrap="wrap" align="center">
        <Input size="sm" width="18rem" type="search" aria-label="Search items" placeholder="Customer, product, subscription …" value={q} onChange={(event) => filter({ q: event.target.value })} />
        <Choice name="Action" value={action} all="All actions" options={Object.entries(ACTIONS).map(([value, each]) => [value, each.label])} onChange={(value) => filter({ action: value })} />
        <Choice name="State" value={state} all="All states" options={Object.entries(ITEM_STATES).map(([value, each]) => [value, each.label])} onChange={(value) => filter({ state: value })} />
        {address.company !== "" && (
          <Button size="xs" variant="subtle" onClick={() => filter({ company: "" })} aria-label={`Only ${companyName ?? "one customer"}: take this filter away`}>
            Only {companyName ?? "one customer"} ✕
          </Button>
        )}
        <Text ms="auto" fontSize="xs" color="fg.muted" aria-live="polite">
          {items.data && counted(items.data.total, "item")}
        </Text>
      </Flex>
      {items.isPending ? (
        <Loading what="items" />
      ) : items.error ? (
        <ErrorBox error={items.error} onRetry={() => items.refetch()} />
      ) : items.data.items.length === 0 ? (
        <Empty title="No such items" detail={q || action || state || address.company ? "No item fits to these filters." : "The plan has nothing to write: ConnectWise stands as it should."} />
      ) : (
        <>
          <TableFrame name="Items of the plan">
            <Table.Root size="sm" opacity={items.isPlaceholderData ? 0.6 : 1}>
              <Table.Header>
                <Table.Row>
                  {canChoose && (
                    <Table.ColumnHeader scope="col" w="1">
                      <Checkbox.Root
                        size="sm"
                        checked={items.data.items.every((item) => !isLeftOut(leftOut, item)) ? true : items.data.items.every((item) => isLeftOut(leftOut, item)) ? false : "indeterminate"}
                        onCheckedChange={(change) => onLeave(items.data.items, change.checked !== true)}
                        aria-label="Take in all items of this page"
                      >
                        <Checkbox.HiddenInput aria-label="Take in all items of this page" />
                        <Checkbox.Control />
                      </Checkbox.Root>
                    </Table.ColumnHeader>
                  )}
                  <Sortable field="action" sort={sort} onChange={filter} label="Action" />
                  <Sortable field="company_name" sort={sort} onChange={filter} label="Customer and agreement" />
                  <Sortable field="product" sort={sort} onChange={filter} label="Product and description" />
                  <Table.ColumnHeader scope="col" textAlign="end">
                    Quantity
                  </Table.ColumnHeader>
                  <Table.ColumnHeader scope="col" textAlign="end">
                    Unit price
                  </Table.ColumnHeader>
                  <Sortable field="effective_date" sort={sort} onChange={filter} label="From, until" />
                  <Sortable field="amount" sort={sort} onChange={filter} label="Money" isNumber />
                  <Sortable field="state" sort={sort} onChange={filter} label="State" />
                </Table.Row>
              </Table.Header>
              <Table.Body>
                {items.data.items.map((item) => (
                  <ItemRow key={item.delivery_key} item={item} isOut={canChoose && isLeftOut(leftOut, item)} onLeave={canChoose ? onLeave : null} />
                ))}
              </Table.Body>
            </Table.Root>
          </TableFrame>
          <PageSteps page={page} pages={pages} onPage={(page) => onChange({ page })} />
        </>
      )}
    </Box>
  );
}

function Choice({ name, value, all, options, onChange }: { name: string; value: string; all: string; options: [string, string][]; onChange: (value: string) => void }) {
  return (
    <NativeSelect.Root size="sm" width="11rem">
      <NativeSelect.Field aria-label={name} value={value} onChange={(event) => onChange(event.target.value)}>
        <option value="">{all}</option>
        {options.map(([key, label]) => (
          <option key={key} value={key}>
            {label}
          </option>
        ))}
      </NativeSelect.Field>
      <NativeSelect.Indicator />
    </NativeSelect.Root>
  );
}

function Sortable({ field, label, sort, onChange, isNumber = false }: { field: string; label: string; sort: string; onChange: (change: { sort: string }) => void; isNumber?: boolean }) {
  const isUp = sort === field;
  const isDown = sort === `-${field}`;
  return (
    <Table.ColumnHeader scope="col" textAlign={isNumber ? "end" : "start"} aria-sort={isUp ? "ascending" : isDown ? "descending" : "none"}>
      <Button variant="plain" size="xs" px="0" h="auto" onClick={() => onChange({ sort: (isNumber ? isDown : !isUp) ? field : `-${field}` })}>
        {label}
        <Text as="span" aria-hidden color={isUp || isDown ? "fg" : "border.emphasized"}>
          {isUp ? "▲" : isDown ? "▼" : "↕"}
        </Text>
      </Button>
    </Table.ColumnHeader>
  );
}

function ItemRow({ item, isOut, onLeave }: { item: Item; isOut: boolean; onLeave: ((items: readonly Item[], isOut: boolean) => void) | null }) {
  const action = ACTIONS[item.action as Action];
  const state = ITEM_STATES[item.state as ItemState];
  const isUpdate = item.action === "update";
  const name = `${item.company_name}, ${item.product ?? item.agreement_name}, ${money(item.amount, item.currency)}`;
  return (
    <Table.Row opacity={isOut ? 0.7 : 1} verticalAlign="top">
      {onLeave && (
        <Table.Cell>
          <Checkbox.Root size="sm" checked={!isOut} onCheckedChange={(change) => onLeave([item], change.checked !== true)}>
            <Checkbox.HiddenInput aria-label={`Take in: ${name}`} />
            <Checkbox.Control />
          </Checkbox.Root>
        </Table.Cell>
      )}
      <Table.Cell whiteSpace="nowrap">
        <Badge colorPalette={action.color} title={action.help}>
          {isUpdate && item.cancelled_date !== null && item.cancelled_date_before === null ? "cancel" : action.label}
        </Badge>
      </Table.Cell>
      <Table.Cell maxW="16rem">
        <Text fontWeight="medium">{item.company_name}</Text>
        <Text fontSize="xs" color="fg.muted">
          {item.agreement_name}
        </Text>
      </Table.Cell>
      <Table.Cell maxW="24rem">
        <Text>
          {item.product ?? "–"}
          <Text as="span" fontSize="xs" color="fg.muted">
            {item.connectwise_addition_id !== null && ` · Addition ${item.connectwise_addition_id}`}
            {item.line_ids.length > 0 && (
              <>
                {" · "}
                <TextLink to={linesLink({ line_ids: item.line_ids })}>{counted(item.line_ids.length, "line")}</TextLink>
              </>
            )}
          </Text>
        </Text>
        {item.description && (
          <Text fontSize="xs" color="fg.muted" lineClamp={2} title={item.description}>
            {item.description}
          </Text>
        )}
      </Table.Cell>
      <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
        <Changed before={isUpdate ? item.quantity_before : null} after={item.quantity} format={quantity} />
      </Table.Cell>
      <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
        <Changed before={isUpdate ? item.unit_price_before : null} after={item.unit_price} format={price} />
      </Table.Cell>
      <Table.Cell whiteSpace="nowrap" fontSize="xs">
        {date(item.effective_date) || "–"}
        <br />
        {isUpdate && item.cancelled_date_before !== item.cancelled_date ? (
          <Changed before={item.cancelled_date_before ?? "open"} after={item.cancelled_date ?? "open"} format={(value) => value ?? ""} />
        ) : (
          (date(item.cancelled_date) || "open")
        )}
      </Table.Cell>
      <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap" fontWeight="medium">
        {money(item.amount, item.currency)}
      </Table.Cell>
      <Table.Cell maxW="18rem">
        <HStack gap="1" wrap="wrap">
          {isOut ? (
            <Badge title="It is left out of your approval; the next run plans it">left out</Badge>
          ) : (
            <Badge colorPalette={state.color} title={state.help}>
              {state.label}
            </Badge>
          )}
          {item.is_stale && (
            <Badge colorPalette="orange" title="Its lines were edited or decided otherwise since: this plan will not deliver it, the next run plans it">
              changed since
            </Badge>
          )}
        </HStack>
        {item.problem && (
          <Text fontSize="xs" color={["refused", "conflict"].includes(item.state) ? "red.fg" : "fg.muted"} whiteSpace="pre-wrap">
            {item.problem}
          </Text>
        )}
        {item.action === "create agreement" && (item.refusal !== null || item.state === "pending") && (
          <>
            {item.refusal !== null && item.refusal !== item.problem && (
              <Text fontSize="xs" color="fg.muted">
                {item.refusal}
              </Text>
            )}
            <RefuseAgreement companyId={item.company_id} companyName={item.company_name} refusal={item.refusal} />
          </>
        )}
      </Table.Cell>
    </Table.Row>
  );
}

const plain = (value: string) => (value.includes(".") ? value.replace(/0+$/, "").replace(/\.$/, "") : value);

/** "5 → 7" where the value changes, else the value. */
function Changed({ before, after, format }: { before: string | null; after: string | null; format: (value: string | null) => ReactNode }) {
  if (before === null || after === null || plain(before) === plain(after)) return <>{after === null ? "–" : format(after)}</>;
  return (
    <>
      <Text as="del" color="fg.muted">
        {format(before)}
      </Text>
      <span aria-hidden> → </span>
      <span className="sr-only"> becomes </span>
      <Text as="ins" textDecoration="none" fontWeight="semibold" bg="amber.subtle" color="amber.fg" px="1" borderRadius="sm">
        {format(after)}
      </Text>
    </>
  );
}
