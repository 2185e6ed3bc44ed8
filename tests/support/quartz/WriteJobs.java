// Writes the jobs of two schedulers, as Quartz itself stores them, into its tables in a PostgreSQL, and prints as JSON when Quartz
// would fire them. record.py beside this file says how written.json is made with it; the tests read that file alone.

import java.io.Serializable;
import java.sql.Connection;
import java.sql.DriverManager;
import java.util.ArrayList;
import java.util.Calendar;
import java.util.Date;
import java.util.GregorianCalendar;
import java.util.List;
import java.util.Properties;
import java.util.TimeZone;
import org.quartz.*;
import org.quartz.impl.StdSchedulerFactory;
import org.quartz.impl.calendar.*;
import org.quartz.impl.triggers.SimpleTriggerImpl;
import org.quartz.spi.OperableTrigger;
import org.quartz.utils.ConnectionProvider;
import org.quartz.utils.DBConnectionManager;

public class WriteJobs {
    static final long DAY = 86_400_000L;
    static final TimeZone BERLIN = TimeZone.getTimeZone("Europe/Berlin");
    static final Date START = utc(2026, 3, 20);
    static final List<String> fireTimes = new ArrayList<>();

    public static class Report implements Job { public void execute(JobExecutionContext context) {} }

    @DisallowConcurrentExecution @PersistJobDataAfterExecution
    public static class Bill implements Job { public void execute(JobExecutionContext context) {} }

    /** A trigger that Quartz has no columns for. */
    public static class Moody extends SimpleTriggerImpl {
        String mood = "good";
        @Override public boolean hasAdditionalProperties() { return true; }
    }

    public static class Order implements Serializable { String number = "A-17"; }

    public static void main(String[] arguments) throws Exception {
        TimeZone.setDefault(BERLIN);
        String url = arguments[0];
        Scheduler shop = scheduler("shop", url, false);
        write(shop);
        Scheduler plain = scheduler("plain", url, true);
        JobDetail texts = JobBuilder.newJob(Report.class).withIdentity("texts").storeDurably()
            .usingJobData("region", "eu = west").usingJobData("note", "caf\u00e9: 5 %").build();
        plain.addJob(texts, false);
        System.out.println("{\n" + String.join(",\n", fireTimes) + "\n}");
        shop.shutdown();
        plain.shutdown();
    }

    static void write(Scheduler scheduler) throws Exception {
        HolidayCalendar holidays = new HolidayCalendar();
        holidays.setTimeZone(BERLIN);
        holidays.addExcludedDate(berlin(2026, 12, 25));
        holidays.addExcludedDate(berlin(2027, 1, 1));
        scheduler.addCalendar("holidays", holidays, false, false);
        WeeklyCalendar weekends = new WeeklyCalendar(null, BERLIN);
        scheduler.addCalendar("weekends", weekends, false, false);
        AnnualCalendar annual = new AnnualCalendar(weekends, BERLIN);
        annual.setDayExcluded(new GregorianCalendar(2026, Calendar.DECEMBER, 24), true);
        scheduler.addCalendar("closed", annual, false, false);
        scheduler.addCalendar("nights", new CronCalendar(null, "* * 0-7 ? * *", BERLIN), false, false);

        JobDetail report = JobBuilder.newJob(Report.class).withIdentity("report").storeDurably()
            .withDescription("Sales of the day before").usingJobData("region", "eu").usingJobData("limit", 100)
            .usingJobData("share", 0.25).usingJobData("dry", false).usingJobData("since", 1_700_000_000_000L).build();
        JobDetail bill = JobBuilder.newJob(Bill.class).withIdentity("bill", "shop").requestRecovery().build();
        JobDataMap objects = new JobDataMap();
        objects.put("order", new Order());
        JobDetail odd = JobBuilder.newJob(Report.class).withIdentity("odd").storeDurably().usingJobData(objects).build();
        JobDetail byHand = JobBuilder.newJob(Report.class).withIdentity("by-hand").storeDurably().build();
        for (JobDetail each : List.of(report, odd, byHand)) {
            scheduler.addJob(each, false);
        }
        scheduler.addJob(bill, true, true);

        cron(scheduler, report, "nightly", "0 30 2 * * ?", "Europe/Berlin", null);
        cron(scheduler, report, "hourly", "0 0 * * * ?", "Europe/Berlin", null);
        cron(scheduler, report, "quarters", "0 0/15 1-3 * * ?", "America/New_York", null);
        cron(scheduler, report, "business-days", "0 0 9 ? * MON-FRI", "America/New_York", null);
        cron(scheduler, report, "last-friday", "0 0 17 ? * 6L", "Europe/Berlin", null);
        cron(scheduler, report, "last-weekday", "0 0 6 LW * ?", "Europe/Berlin", null);
        cron(scheduler, report, "third-last-day", "0 0 6 L-2 * ?", "Australia/Lord_Howe", null);
        cron(scheduler, report, "third-monday", "0 15 10 ? * 2#3 2026-2027", "Europe/Berlin", null);
        cron(scheduler, report, "in-gmt", "0 0 12 * * ?", "GMT+02:00", null);
        cron(scheduler, report, "not-on-holidays", "0 0 9 * * ?", "Europe/Berlin", "holidays");
        cron(scheduler, report, "not-when-closed", "0 0 9 * * ?", "Europe/Berlin", "closed");
        cron(scheduler, report, "not-at-night", "0 0 6-9 * * ?", "Europe/Berlin", "nights");

        store(scheduler, trigger("unmissed", report).withPriority(9).endAt(utc(2099, 1, 1)).usingJobData("region", "us")
            .usingJobData("tries", 3).withSchedule(CronScheduleBuilder.cronSchedule("0 0 3 1 * ?").inTimeZone(BERLIN)
            .withMisfireHandlingInstructionDoNothing()).build());
        store(scheduler, trigger("all-missed", bill).withSchedule(CronScheduleBuilder.cronSchedule("0 0/5 * * * ?")
            .inTimeZone(BERLIN).withMisfireHandlingInstructionIgnoreMisfires()).build());
        store(scheduler, trigger("every-90-minutes", bill).withSchedule(SimpleScheduleBuilder.repeatMinutelyForever(90)
            .withMisfireHandlingInstructionNextWithRemainingCount()).build());
        store(scheduler, trigger("ten-times", report).withSchedule(
            SimpleScheduleBuilder.repeatHourlyForTotalCount(10, 24)).build());
        store(scheduler, trigger("once", report).build());
        store(scheduler, trigger("too-often", report).withSchedule(SimpleScheduleBuilder.simpleSchedule()
            .withIntervalInMilliseconds(100).repeatForever()).build());
        store(scheduler, trigger("every-other-week", report).withSchedule(CalendarIntervalScheduleBuilder
            .calendarIntervalSchedule().withIntervalInWeeks(2).inTimeZone(BERLIN)
            .preserveHourOfDayAcrossDaylightSavings(true)).build());
        store(scheduler, trigger("every-three-hours", report).withSchedule(CalendarIntervalScheduleBuilder
            .calendarIntervalSchedule().withIntervalInHours(3)).build());
        store(scheduler, trigger("every-second-month", report).withSchedule(CalendarIntervalScheduleBuilder
            .calendarIntervalSchedule().withIntervalInMonths(2).inTimeZone(BERLIN)
            .preserveHourOfDayAcrossDaylightSavings(true)).build());
        store(scheduler, trigger("every-other-day", report).startAt(new Date(START.getTime() + 90 * 60_000)).withSchedule(CalendarIntervalScheduleBuilder
            .calendarIntervalSchedule().withIntervalInDays(2).inTimeZone(BERLIN)).build());
        store(scheduler, trigger("month-ends", report).startAt(utc(2026, 3, 31)).withSchedule(CalendarIntervalScheduleBuilder
            .calendarIntervalSchedule().withIntervalInMonths(1).inTimeZone(BERLIN)).build());
        store(scheduler, trigger("office-hours", report).withSchedule(DailyTimeIntervalScheduleBuilder
            .dailyTimeIntervalSchedule().onMondayThroughFriday().startingDailyAt(TimeOfDay.hourAndMinuteOfDay(8, 0))
            .endingDailyAt(TimeOfDay.hourAndMinuteOfDay(17, 0)).withIntervalInMinutes(90)).build());
        store(scheduler, trigger("odd-intervals", report).withSchedule(DailyTimeIntervalScheduleBuilder
            .dailyTimeIntervalSchedule().withIntervalInSeconds(77)).build());
        Moody moody = new Moody();
        moody.setName("moody");
        moody.setJobName("report");
        moody.setJobGroup("DEFAULT");
        moody.setStartTime(START);
        moody.setRepeatCount(-1);
        moody.setRepeatInterval(DAY);
        scheduler.scheduleJob(moody);
        cron(scheduler, odd, "paused", "0 0 12 * * ?", "UTC", null);
        scheduler.pauseTrigger(TriggerKey.triggerKey("paused"));
    }

    static TriggerBuilder<Trigger> trigger(String name, JobDetail job) {
        return TriggerBuilder.newTrigger().withIdentity(name).forJob(job).startAt(START);
    }

    static void cron(Scheduler scheduler, JobDetail job, String name, String expression, String zone, String calendar)
            throws Exception {
        store(scheduler, trigger(name, job).modifiedByCalendar(calendar).withSchedule(
            CronScheduleBuilder.cronSchedule(expression).inTimeZone(TimeZone.getTimeZone(zone))).build());
    }

    static void store(Scheduler scheduler, Trigger trigger) throws Exception {
        scheduler.scheduleJob(trigger);
        org.quartz.Calendar calendar =
            trigger.getCalendarName() == null ? null : scheduler.getCalendar(trigger.getCalendarName());
        OperableTrigger copy = (OperableTrigger) ((OperableTrigger) trigger).clone();
        copy.computeFirstFireTime(calendar);
        List<String> first = new ArrayList<>(), spring = new ArrayList<>(), autumn = new ArrayList<>(), later = new ArrayList<>();
        for (int n = 0; n < 100_000 && copy.getNextFireTime() != null && later.size() < 12; n++) {
            long at = copy.getNextFireTime().getTime();
            if (first.size() < 12) first.add("" + at);
            if (at >= utc(2026, 3, 28).getTime() && at < utc(2026, 3, 30).getTime()) spring.add("" + at);
            if (at >= utc(2026, 10, 24).getTime() && at < utc(2026, 10, 26).getTime()) autumn.add("" + at);
            if (at >= utc(2026, 12, 1).getTime()) later.add("" + at);
            copy.triggered(calendar);
        }
        if (trigger.getKey().getName().matches("too-often|odd-intervals")) return;
        fireTimes.add(" \"" + trigger.getKey().getName() + "\": {\"first\": " + first + ", \"spring\": " + spring
            + ", \"autumn\": " + autumn + ", \"later\": " + later + "}");
    }

    static Date utc(int year, int month, int day) {
        return date(TimeZone.getTimeZone("UTC"), year, month, day);
    }

    static Date berlin(int year, int month, int day) {
        return date(BERLIN, year, month, day);
    }

    static Date date(TimeZone zone, int year, int month, int day) {
        GregorianCalendar at = new GregorianCalendar(zone);
        at.clear();
        at.set(year, month - 1, day);
        return at.getTime();
    }

    static Scheduler scheduler(String name, String url, boolean texts) throws Exception {
        Properties properties = new Properties();
        properties.put("org.quartz.scheduler.instanceName", name);
        properties.put("org.quartz.scheduler.skipUpdateCheck", "true");
        properties.put("org.quartz.threadPool.threadCount", "1");
        properties.put("org.quartz.jobStore.class", "org.quartz.impl.jdbcjobstore.JobStoreTX");
        properties.put("org.quartz.jobStore.driverDelegateClass", "org.quartz.impl.jdbcjobstore.PostgreSQLDelegate");
        properties.put("org.quartz.jobStore.dataSource", "database");
        properties.put("org.quartz.jobStore.useProperties", "" + texts);
        properties.put("org.quartz.dataSource.database.connectionProvider.class", "WriteJobs$Connections");
        properties.put("org.quartz.dataSource.database.url", url);
        return new StdSchedulerFactory(properties).getScheduler();
    }

    public static class Connections implements ConnectionProvider {
        private String url;
        public void setUrl(String url) { this.url = url; }
        public void initialize() {}
        public void shutdown() {}
        public Connection getConnection() throws java.sql.SQLException { return DriverManager.getConnection(url); }
    }
}
