export { AuthenticationPage as default } from "./settings/authentication/AuthenticationPage";
