/** The words of both systems and of these pages, side by side. */
export interface Word {
  here: string;
  appxite: string;
  connectwise: string;
  meaning: string;
}

export const WORDS: Word[] = [
  {
    here: "organization → company",
    appxite: "Organization",
    connectwise: "Company",
    meaning: "The customer. One organization may be spread over several companies by selectors.",
  },
  {
    here: "offer → product",
    appxite: "Offer (product)",
    connectwise: "Product (catalog item)",
    meaning: "What is sold. An offer may become another product for each billing frequency.",
  },
  {
    here: "contract → agreement",
    appxite: "Contract",
    connectwise: "Agreement",
    meaning: "Where the lines of a customer are billed. Without a mapped contract the default Agreement Type decides.",
  },
  {
    here: "invoice line → Addition",
    appxite: "Invoice row",
    connectwise: "Addition of an agreement",
    meaning: "One charge. In ConnectWise it becomes an Addition, which agreement invoicing bills.",
  },
  {
    here: "subscription",
    appxite: "Subscription",
    connectwise: "(one Addition per subscription and agreement)",
    meaning: "With recurring mode “persistent” its lines share one Addition that is prolonged each month.",
  },
  {
    here: "billing period",
    appxite: "Month of the invoice date",
    connectwise: "–",
    meaning: "A calendar month, such as 2026-05. An invoice belongs to the month of its invoice date.",
  },
  {
    here: "cycle",
    appxite: "Billing frequency",
    connectwise: "Billing cycle of the agreement",
    meaning: "How often an agreement is invoiced: monthly, every 2 or 3 months, half-yearly or yearly.",
  },
  {
    here: "charge type",
    appxite: "Charge type",
    connectwise: "–",
    meaning: "What kind of charge a line is. It says whether the line is recurring and which rules give its dates.",
  },
  {
    here: "recurring line, one-time line",
    appxite: "CycleFee, PurchaseFee; all others",
    connectwise: "Persistent or dated Addition",
    meaning: "A recurring line comes again each cycle. A one-time line gets a dated Addition of its own.",
  },
  {
    here: "charge start, charge end",
    appxite: "Charge start date, charge end date",
    connectwise: "effectiveDate, cancelledDate",
    meaning: "The days from and until which the Addition is billed, after the charge type's rules.",
  },
  {
    here: "unit price",
    appxite: "Unit price",
    connectwise: "unitPrice",
    meaning: "ConnectWise bills quantity × unit price, rounded to the cent. The price sent gives AppXite's total exactly.",
  },
  {
    here: "description",
    appxite: "–",
    connectwise: "invoiceDescription",
    meaning: "What stands on the customer's invoice, worded by the setting description_template.",
  },
  {
    here: "marker",
    appxite: "–",
    connectwise: "Serial number (or custom field) of the Addition",
    meaning: "The delivery key as ConnectWise stores it. By it an Addition is found again, so that nothing is billed twice.",
  },
  {
    here: "delivery key",
    appxite: "–",
    connectwise: "–",
    meaning: "The name of one delivery, given once and never again. The ledger is kept by it.",
  },
  {
    here: "mapping",
    appxite: "Mapping",
    connectwise: "–",
    meaning: "What becomes what: organization → company, offer → product, contract → agreement. It goes by ids, never by names.",
  },
  {
    here: "selector",
    appxite: "One-to-many mapping",
    connectwise: "–",
    meaning: "Says which contract, offer or subscription of an organization goes to which of its companies.",
  },
  {
    here: "rule",
    appxite: "Charge parameter",
    connectwise: "–",
    meaning: "A configured value, such as a charge type's start rule. It is stamped on lines when they are loaded (System Updated).",
  },
  {
    here: "override",
    appxite: "User Updated value",
    connectwise: "–",
    meaning: "A value that a person typed for one line. It wins over rules and mappings (User Updated).",
  },
  {
    here: "run",
    appxite: "Synchronization",
    connectwise: "–",
    meaning: "One pass of the pipeline: observe, decide, plan, approve, apply, prove.",
  },
  {
    here: "plan",
    appxite: "–",
    connectwise: "–",
    meaning: "All that a run would create, update or end in ConnectWise, with its money. Exactly that is delivered once it is approved.",
  },
  {
    here: "bounds",
    appxite: "–",
    connectwise: "–",
    meaning: "What is unusual waits for a person: too many Additions, a large amount, a customer far above its usual.",
  },
  {
    here: "Automated Daily Sync",
    appxite: "Automated Daily Sync",
    connectwise: "–",
    meaning: "On: a plan within the bounds is approved by itself. Off: it waits for a person.",
  },
  {
    here: "proof",
    appxite: "Invoice total",
    connectwise: "Additions, read again",
    meaning: "Per invoice, to the cent: source = delivered + held + excluded + awaiting approval + in doubt.",
  },
];

/** States that these pages show, by what they are of. */
export interface StateWord {
  of: string;
  state: string;
  meaning: string;
}

export const STATES: StateWord[] = [
  { of: "mapping", state: "undecided", meaning: "New: nobody has looked yet. Its lines are held. The default of every new entry." },
  { of: "mapping", state: "approved", meaning: "A person approved it. Its lines are delivered." },
  { of: "mapping", state: "excluded", meaning: "A person decided that its lines are never billed. Of a contract: it decides nothing." },
  { of: "line", state: "delivered", meaning: "It stands in ConnectWise as it should, and was read back." },
  { of: "line", state: "held", meaning: "It cannot be delivered yet. All reasons are told; nothing is written to ConnectWise." },
  { of: "line", state: "excluded", meaning: "A person or a rule decided that it is not billed." },
  { of: "line", state: "awaiting approval", meaning: "Ready. A plan, or the next run, delivers it once it is approved." },
  { of: "line", state: "in doubt", meaning: "Written, but ConnectWise does not hold what was sent, or an answer is missing. A person must look." },
  { of: "value", state: "System Updated", meaning: "A rule, mapping or setting gave the value." },
  { of: "value", state: "User Updated", meaning: "A person typed the value. It wins." },
  { of: "value", state: "as invoiced", meaning: "The value is AppXite's own." },
  { of: "plan", state: "proposed", meaning: "It waits for approval." },
  { of: "plan", state: "approved", meaning: "It may be delivered until its deadline." },
  { of: "plan", state: "applied", meaning: "It was delivered." },
  { of: "plan", state: "rejected", meaning: "A person refused it. The next run makes another one." },
  { of: "plan", state: "superseded", meaning: "A newer plan took its place." },
];
