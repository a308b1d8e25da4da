/// <reference types="vitest/config" />
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The server (app.py) writes the nonce and the base address into index.html; assets are relative to that base.
const server = process.env.BILLING_PAGES_SERVER ?? "http://127.0.0.1:8090";

export default defineConfig(({ command }) => ({
  base: command === "serve" ? "/billing/" : "./",
  plugins: [
    react(),
    {
      name: "placeholders-in-dev",
      apply: "serve",
      transformIndexHtml: (html) => html.replaceAll("__BASE__", "/billing/"),
    },
  ],
  html: { cspNonce: "__NONCE__" },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    assetsDir: "assets",
    chunkSizeWarningLimit: 1000,
    modulePreload: { polyfill: false },
  },
  server: {
    port: 5173,
    proxy: {
      // the server compares Origin with Host
      "/billing/api": { target: server, changeOrigin: false },
      "/api/v2": { target: server, changeOrigin: false },
    },
  },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
}));
