import { Badge, Box, Checkbox, Flex, HStack, Table, Text } from "@chakra-ui/react";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { Help } from "../../components/Help";
import { Loading } from "../../components/Loading";
import { PageSteps } from "../../components/PageSteps";
import { TableFrame } from "../../components/TableFrame";
import { ApiError } from "../../lib/api";
import { counted, DateTime, money } from "../../lib/format";
import type { Model } from "../../models";
import { useProof } from "./queries";

type Invoice = Model<"InvoiceProof">;
type Total = Model<"ProofTotal">;

const PER_PAGE = 100;

const COLUMNS = [
  ["source_total", "Invoiced"],
  ["delivered", "Delivered"],
  ["awaiting_approval", "Awaiting approval"],
  ["held", "Held"],
  ["in_doubt", "In doubt"],
  ["excluded", "Excluded"],
] as const;

const isInvoice = (row: Invoice | Total): row is Invoice => "invoice_id" in row;

const isZero = (amount: string) => /^-?0+(\.0*)?$/.test(amount);

/** The proof of the plan's run: what was invoiced against what became of it, as re-read from ConnectWise, to the cent. */
export function Proof({ planId, onlyDifferent, page, onChange }: {
  planId: number;
  onlyDifferent: boolean;
  page: number;
  onChange: (change: { different?: string; proofpage?: string }) => void;
}) {
  const proof = useProof(planId, onlyDifferent, (page - 1) * PER_PAGE, PER_PAGE);
  if (proof.isPending) return <Loading what="proof" />;
  if (proof.error instanceof ApiError && proof.error.status === 404) return <NoProof />;
  if (proof.error) return <ErrorBox error={proof.error} onRetry={() => proof.refetch()} />;
  const { totals, invoices, total, proven_at } = proof.data;
  if (proven_at === null) return <NoProof />;
  const pages = Math.max(1, Math.ceil(total / PER_PAGE));
  return (
    <Box>
      <HStack mb="2" wrap="wrap" gap="3">
        <Text>
          Proven <DateTime at={proven_at} />: ConnectWise was read back, and every cent of every invoice accounted for.
        </Text>
        <Help label="What the proof says">
          Invoiced = delivered + awaiting approval + held + in doubt + excluded, invoice by invoice. “Delivered” is what ConnectWise holds, read back after the run. Any difference but 0.00 is a breach: the run turns red.
        </Help>
        {totals.map((sum) => (
          <Difference key={sum.currency} invoice={sum} isLarge />
        ))}
      </HStack>
      <ProofTable caption="Totals per currency" rows={totals} />
      <Flex mt="4" mb="2" align="center" gap="4">
        <Checkbox.Root size="sm" checked={onlyDifferent} onCheckedChange={(change) => onChange({ different: change.checked === true ? "yes" : "", proofpage: "1" })}>
          <Checkbox.HiddenInput />
          <Checkbox.Control />
          <Checkbox.Label>Only invoices with a difference</Checkbox.Label>
        </Checkbox.Root>
        <Text ms="auto" fontSize="xs" color="fg.muted" aria-live="polite">
          {counted(total, "invoice")}
        </Text>
      </Flex>
      {invoices.length === 0 ? <Empty title={onlyDifferent ? "No invoice has a difference" : "No invoice"} /> : <ProofTable caption="Invoice by invoice" rows={invoices} />}
      <PageSteps page={page} pages={pages} onPage={(proofpage) => onChange({ proofpage })} />
    </Box>
  );
}

const NoProof = () => <Empty title="Nothing is proven yet" detail="The proof is made at the end of a run, after delivery: it reads ConnectWise back and compares." />;

/** "0.00 EUR difference" in green, or what differs in red. */
export function Difference({ invoice, isLarge = false }: { invoice: Pick<Invoice, "difference" | "currency">; isLarge?: boolean }) {
  const isProven = isZero(invoice.difference);
  return (
    <Badge colorPalette={isProven ? "green" : "red"} variant={isProven ? "subtle" : "solid"} size={isLarge ? "md" : "sm"} fontVariantNumeric="tabular-nums">
      {isProven ? "✓" : "✗"} {money(invoice.difference, invoice.currency)} difference
    </Badge>
  );
}

function ProofTable({ caption, rows }: { caption: string; rows: Invoice[] | Total[] }) {
  const isTotal = rows.some((row) => !isInvoice(row));
  return (
    <TableFrame name={caption}>
      <Table.Root size="sm">
        <Table.Caption className="sr-only">{caption}</Table.Caption>
        <Table.Header>
          <Table.Row>
            {isTotal ? (
              <Table.ColumnHeader scope="col">Currency</Table.ColumnHeader>
            ) : (
              <>
                <Table.ColumnHeader scope="col">Invoice</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Customer</Table.ColumnHeader>
              </>
            )}
            {COLUMNS.map(([field, label]) => (
              <Table.ColumnHeader key={field} scope="col" textAlign="end">
                {label}
              </Table.ColumnHeader>
            ))}
            <Table.ColumnHeader scope="col" textAlign="end">
              Difference
            </Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {rows.map((row) => (
            <Table.Row key={isInvoice(row) ? row.invoice_id : row.currency} bg={isZero(row.difference) ? undefined : "red.subtle"}>
              {!isInvoice(row) ? (
                <Table.Cell as="th" scope="row" textAlign="start">
                  {row.currency}, {counted(row.invoices, "invoice")}
                </Table.Cell>
              ) : (
                <>
                  <Table.Cell as="th" scope="row" textAlign="start" fontWeight="medium" whiteSpace="nowrap">
                    {row.invoice_number ?? row.invoice_id}
                  </Table.Cell>
                  <Table.Cell>{row.organization_name}</Table.Cell>
                </>
              )}
              {COLUMNS.map(([field]) => (
                <Table.Cell key={field} textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap" color={isZero(row[field]) ? "fg.muted" : undefined} fontWeight={isTotal ? "medium" : undefined}>
                  {isZero(row[field]) ? "–" : money(row[field], isTotal ? null : row.currency)}
                </Table.Cell>
              ))}
              <Table.Cell textAlign="end" whiteSpace="nowrap">
                <Difference invoice={row} />
              </Table.Cell>
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </TableFrame>
  );
}

/** The proof in one line: when, how many invoices, and the difference of each currency. Nothing while nothing is proven. */
export function ProofLine({ planId }: { planId: number }) {
  const proof = useProof(planId, false, 0, 1);
  if (!proof.data || proof.data.proven_at === null) return null;
  return (
    <HStack wrap="wrap">
      <Text>
        Proven <DateTime at={proof.data.proven_at} />, {counted(proof.data.total, "invoice")}:
      </Text>
      {proof.data.totals.map((total) => (
        <Difference key={total.currency} invoice={total} isLarge />
      ))}
    </HStack>
  );
}
