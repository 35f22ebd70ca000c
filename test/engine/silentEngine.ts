/** @file An engine process that never says it is ready. */
setInterval(() => {}, 1000);
