/** How each connection is set up; the words of docs/connections.md. */
export interface ConnectionHelp {
  connectionType: string;
  fields: { field: string; value: string }[];
  privileges: string[];
}

export const CONNECTION_HELP: Record<string, ConnectionHelp> = {
  appxite_api: {
    connectionType: "http",
    fields: [
      { field: "Host", value: "Address of AppXite's Reporting API. Without a scheme, https is used." },
      { field: "Password", value: "The sasKey." },
      { field: "Extra: requester_id", value: "Your own organization id: the seller. Only invoices that it issues are billed." },
      { field: "Extra: verify", value: "Optional: path of a CA bundle. Certificate checks cannot be switched off." },
    ],
    privileges: ["Read only: nothing is ever written to AppXite."],
  },
  connectwise_api: {
    connectionType: "http",
    fields: [
      {
        field: "Host",
        value: "https://api-na.myconnectwise.net, or api-eu, api-au, api-aus, api-za: your region. On-premises: your own host.",
      },
      { field: "Login", value: "Public key of an API member." },
      { field: "Password", value: "Private key of the API member." },
      { field: "Extra: company_id", value: "The company you log in with." },
      { field: "Extra: client_id", value: "The GUID of your integration, from ConnectWise's developer pages." },
      { field: "Extra: api_version", value: "Optional, 2025.8 if it is left out. It is pinned in every request." },
      { field: "Extra: verify", value: "Optional: path of a CA bundle." },
    ],
    privileges: [
      "Give the API member a security role of its own.",
      "Companies: inquire.",
      "Finance, agreements and their Additions: add, edit, inquire. No delete.",
      "Procurement, product catalog: inquire.",
      "Agreements themselves are added only with the setting create_agreements; leave it off if the role must not.",
    ],
  },
  billing_db: {
    connectionType: "postgres",
    fields: [
      { field: "Host, Port", value: "PostgreSQL 15 to 18. Not Airflow's own database." },
      { field: "Database (schema)", value: "The database's name." },
      { field: "Login, Password", value: "A login that owns this database and nothing else." },
    ],
    privileges: [
      "CREATEDB only for simulations, which run in a scratch database.",
      "CREATEROLE only if migrations shall make the read-only role billing_analyst.",
      "Analysts log in as members of billing_analyst, which reads schema reporting and nothing else.",
    ],
  },
};
