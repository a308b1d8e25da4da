// The frame around every page: its tabs, and which page an address shows.
import { Box, Flex } from "@chakra-ui/react";
import { Component, type ReactNode, Suspense, lazy, useEffect } from "react";
import { Link, Navigate, Outlet, Route, Routes, useLocation } from "react-router";
import { ErrorBox } from "./components/ErrorBox";
import { Loading } from "./components/Loading";
import { mirrorAddress } from "./lib/address";

const Dashboard = lazy(() => import("./pages/dashboard"));
const Organizations = lazy(() => import("./pages/mapping-organizations"));
const Products = lazy(() => import("./pages/mapping-products"));
const Contracts = lazy(() => import("./pages/mapping-contracts"));
const Invoices = lazy(() => import("./pages/invoices"));
const Plan = lazy(() => import("./pages/plan"));
const RunOfDag = lazy(() => import("./pages/run"));
const Logs = lazy(() => import("./pages/logs"));
const Authentication = lazy(() => import("./pages/settings-authentication"));
const Configuration = lazy(() => import("./pages/settings-configuration"));
const Dictionary = lazy(() => import("./pages/settings-dictionary"));

type Tab = { to: string; name: string; under?: string };

const TABS: Tab[] = [
  { to: "/dashboard", name: "Dashboard" },
  { to: "/mapping/organizations", name: "Mapping", under: "/mapping" },
  { to: "/plan", name: "Plan" },
  { to: "/logs", name: "System Logs" },
  { to: "/settings/authentication", name: "Settings", under: "/settings" },
];
const MAPPING: Tab[] = [
  { to: "/mapping/organizations", name: "Organizations" },
  { to: "/mapping/products", name: "Products" },
  { to: "/mapping/contracts", name: "Contracts" },
  { to: "/mapping/invoices", name: "Invoices" },
];
const SETTINGS: Tab[] = [
  { to: "/settings/authentication", name: "Authentication" },
  { to: "/settings/configuration", name: "Configuration" },
  { to: "/settings/dictionary", name: "Dictionary" },
];

function Tabs({ tabs, name, small = false }: { tabs: Tab[]; name: string; small?: boolean }) {
  const { pathname } = useLocation();
  return (
    <Flex
      as="nav"
      aria-label={name}
      gap={small ? 1 : 4}
      borderBottomWidth={small ? 0 : 1}
      px={4}
      pt={small ? 2 : 1}
      overflowX="auto"
      flexShrink={0}
      css={{
        "& a": { px: small ? 3 : 1, py: small ? 1 : 2, color: "fg.muted", whiteSpace: "nowrap", fontSize: "sm" },
        "& a:hover": { color: "fg" },
        "& a:focus-visible": { outline: "2px solid", outlineColor: "brand.focusRing", outlineOffset: "-2px", borderRadius: "sm" },
        "& a[aria-current]": small
          ? { color: "brand.fg", bg: "brand.muted", borderRadius: "md", fontWeight: "medium" }
          : { color: "brand.fg", fontWeight: "semibold", boxShadow: "inset 0 -2px 0 0 currentColor" },
      }}
    >
      {tabs.map((tab) => {
        const isHere = pathname.startsWith(tab.under ?? tab.to);
        return (
          <Link key={tab.to} to={tab.to} aria-current={isHere ? "page" : undefined}>
            {tab.name}
          </Link>
        );
      })}
    </Flex>
  );
}

function Section({ tabs, name }: { tabs?: Tab[]; name: string }) {
  const { pathname } = useLocation();
  return (
    <>
      {tabs && <Tabs tabs={tabs} name={name} small />}
      <Box as="main" flex="1" minH={0} overflow="auto" px={4} py={3} display="flex" flexDirection="column">
        <Caught key={pathname}>
          <Suspense fallback={<Loading what="page" />}>
            <Outlet />
          </Suspense>
        </Caught>
      </Box>
    </>
  );
}

class Caught extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null as Error | null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    return this.state.error === null ? this.props.children : <ErrorBox error={this.state.error} onRetry={() => window.location.reload()} />;
  }
}

export function App() {
  const location = useLocation();
  // biome-ignore lint: each change of the location is mirrored
  useEffect(mirrorAddress, [location]);
  // the tab of a DAG run stands alone inside Airflow's own page
  const isAlone = location.pathname === "/run";
  return (
    <Flex direction="column" height="100%" bg="bg" color="fg">
      {!isAlone && <Tabs tabs={TABS} name="ConnectWise billing" />}
      <Routes>
        <Route element={<Section name="Page" />}>
          <Route path="/dashboard" element={<Dashboard />} />
          <Route path="/plan" element={<Plan />} />
          <Route path="/plan/:planId" element={<Plan />} />
          <Route path="/run" element={<RunOfDag />} />
          <Route path="/logs" element={<Logs />} />
        </Route>
        <Route element={<Section name="Mapping" tabs={MAPPING} />}>
          <Route path="/mapping/organizations" element={<Organizations />} />
          <Route path="/mapping/products" element={<Products />} />
          <Route path="/mapping/contracts" element={<Contracts />} />
          <Route path="/mapping/invoices" element={<Invoices />} />
        </Route>
        <Route element={<Section name="Settings" tabs={SETTINGS} />}>
          <Route path="/settings/authentication" element={<Authentication />} />
          <Route path="/settings/configuration" element={<Configuration />} />
          <Route path="/settings/dictionary" element={<Dictionary />} />
        </Route>
        <Route path="*" element={<Navigate to="/dashboard" replace />} />
      </Routes>
    </Flex>
  );
}
