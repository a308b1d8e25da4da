export { DictionaryPage as default } from "./settings/dictionary/DictionaryPage";
