import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.jpmml.evaluator.EvaluationException;
import org.jpmml.evaluator.Evaluator;
import org.jpmml.evaluator.HasProbability;
import org.jpmml.evaluator.InputField;
import org.jpmml.evaluator.LoadingModelEvaluatorBuilder;
import org.jpmml.evaluator.ProbabilityDistribution;
import org.jpmml.evaluator.TargetField;

/** Answers of JPMML: Evaluate MODEL ROWS ..., a line a record; ROWS is separated by tabs, its first line names the fields. */
class Evaluate {
	public static void main(String[] arguments) throws Exception {
		for (int at = 0; at < arguments.length; at += 2) {
			System.out.println("# " + arguments[at]);
			Evaluator evaluator;
			try {
				evaluator = new LoadingModelEvaluatorBuilder().load(new File(arguments[at])).build();
				evaluator.verify();
			} catch (Exception fault) {
				System.out.println("refused\t" + fault);
				continue;
			}
			List<String> lines = Files.readAllLines(Path.of(arguments[at + 1]));
			String[] names = lines.get(0).split("\t", -1);
			for (String line : lines.subList(1, lines.size())) {
				System.out.println(answer(evaluator, names, line.split("\t", -1)));
			}
		}
	}

	private static String answer(Evaluator evaluator, String[] names, String[] cells) {
		try {
			Map<String, Object> record = new LinkedHashMap<>();
			for (InputField field : evaluator.getInputFields()) {
				Object raw = null;
				for (int place = 0; place < names.length; place++) {
					if (names[place].equals(field.getName()) && !cells[place].isEmpty()) {
						raw = cells[place];
					}
				}
				record.put(field.getName(), field.prepare(raw));
			}
			Map<String, ?> results = evaluator.evaluate(record);
			TargetField target = evaluator.getTargetFields().get(0);
			Object found = results.get(target.getName());
			if (found == null) {
				return "nothing";
			}
			if (found instanceof HasProbability shares) {
				StringBuilder text = new StringBuilder();
				for (Object name : shares.getCategories()) {
					text.append(text.isEmpty() ? "" : "\t").append(name).append("=").append(shares.getProbability(name));
				}
				return text.toString();
			}
			if (found instanceof org.jpmml.evaluator.Computable computed) {
				found = computed.getResult();
			}
			return String.valueOf(found);
		} catch (EvaluationException | org.jpmml.model.InvalidMarkupException | org.jpmml.model.UnsupportedMarkupException fault) {
			return "nothing\t" + fault.getClass().getSimpleName() + " " + String.valueOf(fault.getMessage()).replaceAll("\\s+", " ");
		}
	}
}
