# kcat is on the PATH by now; the Java client comes with its console programs, into libs: java -cp 'libs/*' org.apache.kafka.tools.ConsoleProducer
rm -rf libs
mvn -q -B -f "$OLDPWD/internal/setup/kafka/pom.xml" -Dkafka="$VERSION" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/libs" >mvn.log 2>&1 ||
	{ tail -n 20 mvn.log >&2; exit 2; }
