/** @file Lets the compiler know Svelte components, runes and the bundler's asset imports. */
/// <reference types="svelte" />
/// <reference types="vite/client" />
