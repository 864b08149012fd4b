// Starts `archspec lsp` and connects the editor to it. Plain JavaScript: there is nothing to build.
"use strict";

const os = require("node:os");
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

/** The command of the settings, with `~` and `${workspaceFolder}` filled in. */
function commandOf(configured) {
  const folders = vscode.workspace.workspaceFolders;
  const folder = folders && folders.length ? folders[0].uri.fsPath : ".";
  return configured.replace(/^~(?=\/|\\|$)/, os.homedir()).replaceAll("${workspaceFolder}", folder);
}

async function start() {
  const settings = vscode.workspace.getConfiguration("archspec");
  const command = commandOf(settings.get("command", "archspec"));
  const watcher = vscode.workspace.createFileSystemWatcher("**/*.arch");
  client = new LanguageClient(
    "archspec",
    "archspec",
    { command, args: settings.get("arguments", ["lsp"]) },
    { documentSelector: [{ language: "archspec" }], synchronize: { fileEvents: watcher } },
  );
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    watcher.dispose();
    vscode.window.showErrorMessage(
      `archspec: \`${command}\` did not start (${error.message}). ` +
        "Install it with `pip install 'archspec-lm[lsp]'`, or set `archspec.command` to its path.",
    );
  }
}

async function stop() {
  const running = client;
  client = undefined;
  if (running) {
    await running.stop();
  }
}

async function restart() {
  await stop();
  await start();
}

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("archspec.restart", restart),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("archspec.command") || event.affectsConfiguration("archspec.arguments")) {
        return restart();
      }
    }),
  );
  await start();
}

module.exports = { activate, deactivate: stop };
