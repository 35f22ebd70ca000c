/**
 * @file Plain sentences and questions on which a patch is to stay quiet where a person gives no texts. The published code takes sentences
 * of an encyclopaedia.
 */
export const plainTexts: readonly string[] = [
  'The river flows through three countries before it reaches the sea.',
  'What is the capital of the country? It lies on the coast.',
  'She wrote her first novel at the age of thirty and it was read widely.',
  'How many people are standing in front of the house? Four.',
  'The bridge was built of stone in the twelfth century and repaired twice.',
  'Is there a window in the picture? Yes, on the left side.',
  'A kilogram of water fills one litre at room temperature.',
  'Which color does the wall behind the table have? It is white.',
  'The orchestra played two symphonies and a short overture that evening.',
  'Where does the train stop next? At the harbour.',
  'Bread is made of flour, water, salt and yeast.',
  'What can be seen in the background? Trees and a road.',
  'The company was founded by two brothers who sold tools.',
  'Who is riding the bicycle? A child with a helmet.',
  'Light takes about eight minutes from the sun to the earth.',
  'Do you see any animals in this image? No.',
];
