// Style sheets are bundled, and are no modules to TypeScript.
declare module "*.css";
