/**
 * @file Starts the page: finds its backend, wires the state, shows the application.
 */
import './look.css';
import { mount } from 'svelte';
import { connect } from './backend.ts';
import App from './shell/App.svelte';
import { Application } from './state/application.svelte.ts';

const application = new Application(connect(window));
mount(App, { target: document.getElementById('app')!, props: { application } });
void application.start();
