export { ConfigurationPage as default } from "./settings/configuration/ConfigurationPage";
