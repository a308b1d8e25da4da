// Airflow's look: its colours and sizes on the same library, Chakra UI.
import { createSystem, defaultConfig, defineConfig } from "@chakra-ui/react";
import { airflowColors } from "./theme-colors";

const palette = (name: string) => ({
  solid: { value: `{colors.${name}.600}` },
  contrast: { value: "white" },
  fg: { value: { _light: `{colors.${name}.800}`, _dark: `{colors.${name}.200}` } },
  muted: { value: { _light: `{colors.${name}.200}`, _dark: `{colors.${name}.800}` } },
  subtle: { value: { _light: `{colors.${name}.100}`, _dark: `{colors.${name}.900}` } },
  emphasized: { value: { _light: `{colors.${name}.300}`, _dark: `{colors.${name}.700}` } },
  focusRing: { value: { _light: `{colors.${name}.800}`, _dark: `{colors.${name}.200}` } },
});

const names = ["brand", "gray", "red", "orange", "amber", "green", "cyan", "blue", "violet"];

export const system = createSystem(
  defaultConfig,
  defineConfig({
    theme: {
      tokens: { colors: airflowColors },
      semanticTokens: {
        colors: {
          ...Object.fromEntries(names.map((name) => [name, palette(name)])),
          success: palette("green"),
          warning: palette("amber"),
          danger: palette("red"),
          // muted text passes AA on subtle backgrounds too
          "fg.muted": { value: { _light: "{colors.gray.600}", _dark: "{colors.gray.300}" } },
        },
      },
      recipes: { button: { base: { colorPalette: "brand" }, defaultVariants: { size: "sm" } } },
      slotRecipes: {
        checkbox: { slots: [], base: { root: { colorPalette: "brand" } }, defaultVariants: { size: "sm" } },
        switch: { slots: [], defaultVariants: { size: "sm" } },
        table: { slots: [], defaultVariants: { size: "sm" } },
      },
    },
    globalCss: {
      "html, body, #root": { height: "100%" },
      body: { fontSize: "sm" },
      ".sr-only": {
        position: "absolute",
        width: "1px",
        height: "1px",
        overflow: "hidden",
        clipPath: "inset(50%)",
        whiteSpace: "nowrap",
      },
    },
  }),
);
