import { Badge, Box, Button, Field, Flex, Input, NativeSelect, Table, Text } from "@chakra-ui/react";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useDeferredValue } from "react";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { Loading } from "../../components/Loading";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { useAddress } from "../../lib/address";
import { get } from "../../lib/api";
import { DateTime } from "../../lib/format";
import { linesLink, logsLink, planLink } from "../../lib/links";
import type { Model } from "../../models";

type Attempt = Model<"Attempt">;

const ADDRESS = { by: "invoice_number", find: "" };

const BY = {
  invoice_number: { label: "Invoice number", isNumber: false },
  subscription_id: { label: "Subscription id", isNumber: false },
  addition_id: { label: "Addition id in ConnectWise", isNumber: true },
  delivery_key: { label: "Delivery key", isNumber: false },
  plan_id: { label: "Plan", isNumber: true },
} as const;

const ANSWERS: Record<Attempt["answer"], { label: string; color: string; help: string }> = {
  ok: { label: "done", color: "green", help: "ConnectWise has done it." },
  fail: { label: "not done", color: "red", help: "ConnectWise has certainly not done it." },
  unknown: { label: "answer lost", color: "orange", help: "Nobody can know from the answer whether it was done. The next delivery looks it up in ConnectWise; it never writes twice." },
  "none yet": { label: "no answer yet", color: "gray", help: "It was sent, and is not answered yet." },
};

const OPERATIONS: Record<Attempt["operation"], string> = {
  create: "create Addition (not billed yet)",
  activate: "set Addition to bill",
  update: "update Addition",
  neutralise: "end a duplicate that never billed",
  deactivate: "set Addition not to bill",
  create_agreement: "create agreement",
};

/** The delivery ledger: every write to ConnectWise for ever, with its answer. */
export function Attempts() {
  const [address, change] = useAddress(ADDRESS);
  const by = (address.by in BY ? address.by : "invoice_number") as keyof typeof BY;
  const find = useDeferredValue(address.find.trim());
  const isWrong = BY[by].isNumber && find !== "" && !/^[1-9]\d{0,15}$/.test(find);
  const attempts = useInfiniteQuery({
    queryKey: ["attempts", by, find],
    queryFn: ({ pageParam, signal }) => get<Model<"AttemptPage">>("attempts", { [by]: find, before: pageParam, limit: 100 }, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before,
    enabled: !isWrong,
  });
  const found = attempts.data?.pages.flatMap((page) => page.attempts) ?? [];
  return (
    <Box>
      <Flex gap="2" mb="2" align="end" wrap="wrap">
        <NativeSelect.Root size="sm" width="15rem">
          <NativeSelect.Field aria-label="Search by" value={by} onChange={(event) => change({ by: event.target.value })}>
            {Object.entries(BY).map(([key, each]) => (
              <option key={key} value={key}>
                {each.label}
              </option>
            ))}
          </NativeSelect.Field>
          <NativeSelect.Indicator />
        </NativeSelect.Root>
        <Field.Root width="20rem" invalid={isWrong}>
          <Input size="sm" type="search" aria-label={BY[by].label} placeholder={`${BY[by].label}; empty: all, newest first`} value={address.find} onChange={(event) => change({ find: event.target.value })} />
          <Field.ErrorText>This is a number.</Field.ErrorText>
        </Field.Root>
      </Flex>
      {isWrong ? null : attempts.isPending ? (
        <Loading what="writes" />
      ) : attempts.error ? (
        <ErrorBox error={attempts.error} onRetry={() => attempts.refetch()} />
      ) : found.length === 0 ? (
        <Empty title={find === "" ? "Nothing was ever written to ConnectWise" : "No write fits"} detail={find === "" ? undefined : `Nothing was sent for ${BY[by].label.toLowerCase()} ${find}.`} />
      ) : (
        <>
          <AttemptTable attempts={found} />
          {attempts.hasNextPage && (
            <Button mt="2" size="xs" variant="outline" loading={attempts.isFetchingNextPage} onClick={() => attempts.fetchNextPage()}>
              Show older writes
            </Button>
          )}
        </>
      )}
    </Box>
  );
}

function AttemptTable({ attempts }: { attempts: Attempt[] }) {
  return (
    <TableFrame name="Writes to ConnectWise">
      <Table.Root size="sm">
        <Table.Header>
          <Table.Row>
            <Table.ColumnHeader scope="col">Sent</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">What</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Answer</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Customer and agreement</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">For</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Approved</Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {attempts.map((each) => (
            <Table.Row key={each.attempt_id} verticalAlign="top">
              <Table.Cell whiteSpace="nowrap" fontVariantNumeric="tabular-nums">
                <DateTime at={each.attempted_at} hasSeconds />
              </Table.Cell>
              <Table.Cell>
                {OPERATIONS[each.operation]}
                <Text fontSize="xs" color="fg.muted">
                  {each.connectwise_addition_id !== null ? `Addition ${each.connectwise_addition_id}` : ""}
                </Text>
              </Table.Cell>
              <Table.Cell maxW="20rem">
                <Badge colorPalette={ANSWERS[each.answer].color} title={ANSWERS[each.answer].help}>
                  {ANSWERS[each.answer].label}
                </Badge>
                {each.detail && (
                  <Text fontSize="xs" color="fg.muted" whiteSpace="pre-wrap" overflowWrap="anywhere">
                    {each.detail}
                  </Text>
                )}
              </Table.Cell>
              <Table.Cell maxW="16rem">
                {each.company_name ?? "–"}
                <Text fontSize="xs" color="fg.muted">
                  {each.agreement_name}
                </Text>
              </Table.Cell>
              <Table.Cell>
                {each.invoice_numbers.map((number) => (
                  <Box key={number}>
                    <TextLink to={linesLink({ invoice_number: number })}>{number}</TextLink>
                  </Box>
                ))}
                <Text fontSize="xs" color="fg.muted" overflowWrap="anywhere" title={`Delivery key ${each.delivery_key}, worker ${each.worker}`}>
                  {each.delivery_key}
                </Text>
              </Table.Cell>
              <Table.Cell>
                {each.plan_id !== null && (
                  <Box whiteSpace="nowrap">
                    <TextLink to={planLink(each.plan_id)}>plan {each.plan_id}</TextLink>
                    {each.run_id !== null && (
                      <>
                        {" · "}
                        <TextLink to={logsLink(each.run_id)}>run {each.run_id}</TextLink>
                      </>
                    )}
                  </Box>
                )}
                <Text fontSize="xs" color="fg.muted">
                  {each.approved_by && `by ${each.approved_by}`}
                </Text>
              </Table.Cell>
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </TableFrame>
  );
}
