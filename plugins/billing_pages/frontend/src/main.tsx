import createCache from "@emotion/cache";
import { CacheProvider } from "@emotion/react";
import { ChakraProvider } from "@chakra-ui/react";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";
import { App } from "./app";
import { Toaster } from "./components/Toaster";
import { ApiError } from "./lib/api";
import { followColorMode } from "./lib/color-mode";
import { system } from "./theme";

followColorMode();

// The server gives each page a nonce; without it the browser refuses Emotion's styles.
const nonce = document.querySelector<HTMLMetaElement>("meta[name=csp-nonce]")?.nonce;
const styles = createCache({ key: "billing", nonce });

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      // what a second try cannot change is not tried again
      retry: (failures, error) => failures < 2 && error instanceof ApiError && (error.status === 0 || error.status >= 502),
      refetchOnWindowFocus: false,
    },
  },
});

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <CacheProvider value={styles}>
      <ChakraProvider value={system}>
        <QueryClientProvider client={queries}>
          <BrowserRouter basename={new URL(document.baseURI).pathname.replace(/\/$/, "")}>
            <App />
            <Toaster />
          </BrowserRouter>
        </QueryClientProvider>
      </ChakraProvider>
    </CacheProvider>
  </StrictMode>,
);
